"""``agentd``'s settings: environment over file over defaults, and where things are when nothing is said."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from borough.config import agentd_places as places
from borough.config.governance import DEFAULT_MODEL, DEFAULT_TOKEN_DB, load_governance, parse_address
from borough.core.errors import Invalid


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "AGENTD_CONFIG": str(written(tmp_path, "")),
    }


def written(folder: Path, text: str) -> Path:
    path = folder / "agentd.toml"
    path.write_text(text)
    return path


def test_with_nothing_said_it_is_as_the_reference_page_has_it(environ: dict[str, str]) -> None:
    settings = load_governance(environ)
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.token_db == DEFAULT_TOKEN_DB == Path("/tmp/agentd_api_tokens.db")
    assert settings.cors_origins == ()
    assert not settings.strict
    assert settings.default_model == DEFAULT_MODEL
    assert settings.models_key is None
    assert settings.body_limit_bytes == 8 * 1_048_576


def test_the_environment_says_the_rest(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {
        "AGENTD_API_ADDR": "0.0.0.0:9090",
        "AGENTD_API_CORS_ORIGINS": " https://dashboard.example.com, https://ci.example.com/ ,,",
        "AGENTD_API_TOKEN_DB": str(tmp_path / "tokens.db"),
        "AGENTD_DATA_DIR": str(tmp_path / "data"),
        "SCARAB_SOCKET": str(tmp_path / "a.sock"),
        "AGENTD_API_AUTHZ": "strict",
        "AGENTD_LOG": "debug",
        "SCARAB_DEFAULT_MODEL": "some/model",
        "OPENROUTER_API_KEY": "sk-secret",
    }
    settings = load_governance(environ)
    assert (settings.host, settings.port) == ("0.0.0.0", 9090)
    assert settings.cors_origins == ("https://dashboard.example.com", "https://ci.example.com")
    assert settings.token_db == tmp_path / "tokens.db"
    assert settings.data_folder == tmp_path / "data"
    assert settings.socket == tmp_path / "a.sock"
    assert settings.agents_socket == tmp_path / "a.sock.agents"
    assert settings.strict
    assert settings.verbose
    assert settings.default_model == "some/model"
    assert settings.models_key == "sk-secret"
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("origins", ["", "*", " * ", "https://a.example,*"])
def test_no_list_of_origins_means_all(environ: dict[str, str], origins: str) -> None:
    assert load_governance(environ | {"AGENTD_API_CORS_ORIGINS": origins}).cors_origins == ()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = written(tmp_path, 'socket = "file.sock"\napi_addr = "127.0.0.1:1"\n')
    assert load_governance(environ, file=file).socket == tmp_path / "file.sock"
    environ["SCARAB_SOCKET"] = "/run/env.sock"
    assert load_governance(environ, file=file).socket == Path("/run/env.sock")
    assert load_governance(environ, file=file, socket=Path("/run/here.sock")).socket == Path("/run/here.sock")
    assert load_governance(environ, file=file).port == 1
    assert load_governance(environ | {"AGENTD_API_ADDR": "127.0.0.1:2"}, file=file).port == 2


def test_the_file_has_more(environ: dict[str, str], tmp_path: Path) -> None:
    text = """
        max_hierarchy_depth = 3
        body_limit_bytes = 2048
        ledger_retention_days = 30
        api_authz = "strict"
        [models]
        base_url = "http://127.0.0.1:11434/v1/"
    """
    settings = load_governance(environ, file=written(tmp_path, text))
    assert settings.max_depth == 3
    assert settings.body_limit_bytes == 2048
    assert settings.ledger_kept == timedelta(days=30)
    assert settings.strict
    assert settings.models_url == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_hierarchy_dept = 3", "max_hierarchy_depth"),
        ("[models]\nbase_ur = 'x'", "models.base_url"),
        ("[modles]\nbase_url = 'x'", "models"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known(
    environ: dict[str, str], tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        load_governance(environ, file=written(tmp_path, text))
    assert refusal.value.code == "unknown_setting"
    assert told in (refusal.value.resolution or "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"AGENTD_API_ADDR": "8080"},
        {"AGENTD_API_ADDR": ":8080"},
        {"AGENTD_API_ADDR": "127.0.0.1:http"},
        {"AGENTD_API_ADDR": "127.0.0.1:65536"},
        {"AGENTD_API_ADDR": "::1:80"},
        {"AGENTD_API_AUTHZ": "stric"},
        {"AGENTD_LOG": "everything"},
        {"AGENTD_CONFIG": "/nowhere/agentd.toml"},
    ],
)
def test_what_makes_no_sense_is_refused(environ: dict[str, str], wrong: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        load_governance(environ | wrong)


def test_addresses() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("localhost:0") == ("localhost", 0)


# -- where things are --------------------------------------------------------------------------------------------------


def test_root_has_the_system_s_places() -> None:
    assert places.operators_socket({}, uid=0) == Path("/run/agentd/agentd.sock")
    assert places.data_folder({}, uid=0) == Path("/var/lib/agentd")


def test_others_have_their_own(tmp_path: Path) -> None:
    environ = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert places.operators_socket(environ, uid=1000) == tmp_path / "agentd" / "agentd.sock"
    assert places.data_folder(environ, uid=1000) == Path("/home/ada/.local/state/agentd")
    assert places.data_folder(environ | {"XDG_STATE_HOME": "/s"}, uid=1000) == Path("/s/agentd")
    assert places.settings_file(environ, uid=1000) == Path("/home/ada/.config/agentd/agentd.toml")


def test_without_a_session_the_user_s_runtime_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SYSTEM_RUN", tmp_path)
    user = os.geteuid() or 4711
    folder = tmp_path / "user" / str(user)
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, user, -1)
    environ = {"HOME": "/home/ada"}
    assert places.operators_socket(environ, uid=user) == folder / "agentd" / "agentd.sock"
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o022)
    assert places.operators_socket(environ, uid=user) == Path("/home/ada/.local/state/agentd/run/agentd.sock")


def test_the_data_folder_does_not_move_the_socket() -> None:
    """Or the shell, which may not know of it, would look in another place than the daemon."""
    environ = {"HOME": "/home/ada", "AGENTD_DATA_DIR": "/elsewhere"}
    assert places.operators_socket(environ, uid=4711) == Path("/home/ada/.local/state/agentd/run/agentd.sock")
