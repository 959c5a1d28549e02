import re
import shlex
import stat
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.config import agent_clis, editing
from borough.config.environment import WorkerEnvironment, container_environment, worker_environment
from borough.config.global_file import (
    change_global_setting,
    forget_town,
    load_global,
    load_settings,
    read_global_setting,
    register_town,
    registered_towns,
)
from borough.config.reading import known_keys
from borough.config.sections import RedisSection, TownFileSection
from borough.config.store import redacted
from borough.config.town import TownSettings, load_town, settings_from
from borough.config.town_file import change_town_setting, create_town, proposed_name, read_town_setting
from borough.core.errors import Conflict, Invalid, NotFound
from borough.town.names import town_name
from borough.worker.__main__ import parser as worker_command

ROOT = Path("/town")
PHC = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"

REFERENCE_FILE = f"""
name = "mytown"
default_cli = "claude"
conductor_cli = "codex"
max_agents = 10
use_central_redis = false
use_streams = true

[redis]
url = "redis://127.0.0.1:6379"
use_socket = true
socket_path = ".tt/redis.sock"
host = "127.0.0.1"
port = 6379
bind = "127.0.0.1"
password = "hush"
tls_enabled = false
tls_cert = "c"
tls_key = "k"
tls_ca_cert = "ca"
persist = false
aof_path = ".tt/redis.aof"

[townhall]
bind = "127.0.0.1"
rest_port = 8080
request_timeout_ms = 30000

[townhall.auth]
mode = "api_key"
api_key_hash = "{PHC}"
api_key_scopes = ["town.read", "town.write", "agent.manage"]
issuer = "https://id.example"
audience = "town"
jwks_url = "https://id.example/keys"
required_scopes = ["town.read"]
clock_skew_seconds = 60

[townhall.tls]
enabled = false
cert_file = "c.pem"
key_file = "k.pem"

[townhall.mtls]
enabled = false
required = false
ca_file = "ca.pem"

[agent]
idle_timeout_secs = 300

[agent_clis.claude]
name = "claude"
command = "claude --print --dangerously-skip-permissions"
workdir = "src"
env = {{ A = "b" }}
"""


def settings(text: str, environ: dict[str, str] | None = None) -> TownSettings:
    return settings_from(tomllib.loads(text), root=ROOT, environ=environ or {}, more_clis={})


def refusal(text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        settings(text)
    return caught.value


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_name_is_enough_and_the_defaults_are_those_of_the_reference() -> None:
    town = settings('name = "mytown"')
    assert (town.townhall.bind, town.townhall.rest_port, town.townhall.request_timeout_ms) == ("127.0.0.1", 8080, 30000)
    assert (town.max_agents, town.agent.idle_timeout_secs, town.default_cli) == (10, 300, "claude")
    assert (town.townhall.auth.mode, town.townhall.auth.clock_skew_seconds) == ("none", 60)
    assert town.store.embedded
    assert town.store.socket_path == ROOT / ".tt/redis.sock"
    assert town.conductor_cli == "claude"
    assert town.warnings == ()


def test_every_key_of_the_reference_is_accepted() -> None:
    town = settings(REFERENCE_FILE)
    assert town.store.url == "redis://127.0.0.1:6379"
    assert town.agent_clis["claude"].workdir == "src"
    assert town.conductor_cli == "codex"


def test_secrets_do_not_show() -> None:
    town = settings(REFERENCE_FILE.replace("redis://", "redis://:hidden@"))
    section = TownFileSection(name="a", redis=RedisSection(password="hush"))
    shown = repr(town) + repr(section)
    assert "hidden" not in shown
    assert "hush" not in shown
    assert "argon2id" not in shown


@pytest.mark.parametrize(
    ("text", "named", "suggested"),
    [
        ('name="a"\nmax_agent=3', "'max_agent'", "'max_agents'"),
        ('name="a"\nrest_port=3', "'rest_port'", "'townhall.rest_port'"),
        ('name="a"\n[townhall]\nport=3', "'townhall.port'", "'townhall.rest_port'"),
        ('name="a"\n[townhall.tls]\ncert_path="x"', "'townhall.tls.cert_path'", "'townhall.tls.cert_file'"),
        ('name="a"\n[agent_clis.foo]\ncommad="x"', "'agent_clis.foo.commad'", "'agent_clis.foo.command'"),
        ('name="a"\n[[townhall.auth.keys]]\nexpires=3', "'townhall.auth.keys.0.expires'", "expires_at'"),
        ('name="a"\n[agent]\nidle_timeout=3', "'agent.idle_timeout'", "'agent.idle_timeout_secs'"),
        ('name="a"\n[zzzzqqq]', "'zzzzqqq'", "known here: "),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest(text: str, named: str, suggested: str) -> None:
    error = refusal(text)
    assert error.code == "unknown_setting"
    assert error.message.startswith("tinytown.toml: ")
    assert named in error.message
    assert error.resolution is not None
    assert suggested in error.resolution


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('name="a"\n[townhall]\nrest_port="8080"', "townhall.rest_port"),
        ('name="a"\n[townhall]\nrest_port=0', "townhall.rest_port"),
        ('name="a"\ntownhall=3', "townhall"),
        ('name="a"\n[agent_clis.foo]\ncommand=3', "agent_clis.foo.command"),
        ('name="a"\n[agent_clis.ok]\ncommand="x"\n[agent_clis.foo]\ntimeout_secs=0', "agent_clis.foo.timeout_secs"),
        ('name="a"\n[[townhall.auth.keys]]\nid="a"\nhash="b"\nexpires_at=2030-01-01T00:00:00', "keys.0.expires_at"),
        ('name="a"\n[[townhall.auth.keys]]\nid="a"\nhash="b"', "townhall.auth.keys.0.hash"),
        ('name="a"\n[townhall.auth]\napi_key_scopes=["town:read"]', "townhall.auth.api_key_scopes"),
        ("max_agents=3", "'name'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(text: str, path: str) -> None:
    error = refusal(text)
    assert error.code == "invalid_setting"
    assert path in error.message
    assert error.resolution


def test_a_closed_set_of_words_is_told() -> None:
    assert refusal('name="a"\n[townhall.auth]\nmode="apikey"').resolution == "choose from api_key, none, oidc"
    assert "town.read" in (refusal('name="a"\n[townhall.auth]\napi_key_scopes=["town:read"]').resolution or "")


def test_a_key_id_stands_once() -> None:
    key = f'[[townhall.auth.keys]]\nid="ci"\nhash="{PHC}"\n'
    assert "twice" in refusal(f'name="a"\n{key}{key}').message


@pytest.mark.parametrize(
    "line", ["use_central_redis = true", "use_streams = false", "redis.persist = true", 'redis.aof_path = "x"']
)
def test_a_key_without_meaning_here_warns_once(line: str) -> None:
    warnings = settings(f'name = "a"\n{line}').warnings
    assert len(warnings) == 1
    assert line.partition(" =")[0] in warnings[0]


def test_no_town_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        load_town(tmp_path, {})
    assert "tt init" in (caught.value.resolution or "")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "tinytown.toml").write_text('name = "a"\nmax_agents = \n')
    with pytest.raises(Invalid, match="line 2"):
        load_town(tmp_path, {})


# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environ", "url"),
    [
        ("", {}, None),
        ("", {"REDIS_URL": " "}, None),
        ("", {"REDIS_URL": "redis://h:1"}, "redis://h:1"),
        ('url="redis://file"', {"REDIS_URL": "redis://environment"}, "redis://environment"),
        ('url="unix:///x.sock"', {}, "unix:///x.sock"),
        ("use_socket=false", {}, "redis://127.0.0.1:6379"),
        ("use_socket=false", {"TT_USE_SOCKET": "TRUE"}, None),
        ('use_socket=false\nhost="::1"\ntls_enabled=true', {}, "rediss://[::1]:6379"),
        ('use_socket=false\npassword="a/b:c@d"', {}, "redis://:a%2Fb%3Ac%40d@127.0.0.1:6379"),
        ('use_socket=false\npassword="file"', {"TINYTOWN_REDIS_PASSWORD": "env"}, "redis://:env@127.0.0.1:6379"),
    ],
)
def test_where_the_state_is_kept(text: str, environ: dict[str, str], url: str | None) -> None:
    store = settings(f'name="a"\n[redis]\n{text}', environ).store
    assert store.url == url
    assert store.embedded is (url is None)


@pytest.mark.parametrize("url", ["http://x", "redis://", "nonsense", "unix://", "redis://h:99999"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        settings('name="a"', {"REDIS_URL": url})
    assert "REDIS_URL" in caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pass@h:1/0", "redis://user:****@h:1/0"),
        ("redis://:p@ss@h", "redis://:****@h"),
        ("redis://h", "redis://h"),
        ("nonsense", "nonsense"),
    ],
)
def test_passwords_are_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown


# -- agent CLIs --------------------------------------------------------------------------------------------------------


def test_presets_take_their_prompt_as_their_programs_do() -> None:
    run = {
        name: agent_clis.run_argv(cli, prompt="do it", prompt_file=Path("/p.md"))
        for name, cli in agent_clis.PRESETS.items()
    }
    assert run["claude"] == ("claude", "--print", "--dangerously-skip-permissions")
    assert run["auggie"] == ("auggie", "--print", "--instruction-file", "/p.md")
    assert run["aider"] == ("aider", "--yes", "--no-auto-commits", "--message", "do it")
    assert run["codex-mini"][-4:] == ("-m", "gpt-5.4-mini", "-c", "model_reasoning_effort=medium")
    assert set(run) == {"claude", "auggie", "codex", "codex-mini", "aider", "gemini", "copilot", "cursor"}


@pytest.mark.parametrize(
    ("text", "name", "first"),
    [
        ("", "claude", "claude"),
        ("codex", "codex", "codex"),
        ("auggie --print", "auggie", "auggie"),
        ("gh copilot", "copilot", "gh"),
        ("codex -m gpt-5.4-mini", "codex-mini", "codex"),
        ("claude --model opus", "claude", "claude"),
        ("/opt/mine --fast 'two words'", "/opt/mine", "/opt/mine"),
    ],
)
def test_what_a_cli_text_stands_for(text: str, name: str, first: str) -> None:
    cli = agent_clis.resolve(text, agent_clis.PRESETS).cli
    assert (cli.name, cli.argv[0]) == (name, first)


def test_a_dropped_argument_is_told() -> None:
    assert "claude --model opus" in (agent_clis.resolve("claude --model opus", agent_clis.PRESETS).note or "")
    assert agent_clis.resolve("claude", agent_clis.PRESETS).note is None


@pytest.mark.parametrize("text", ["my 'agent", "''", "a\0b"])
def test_a_command_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        agent_clis.resolve(text, agent_clis.PRESETS)
    assert caught.value.code == "invalid_command"


def test_the_file_lies_over_the_presets_and_keeps_what_it_leaves_out() -> None:
    town = settings(
        'name="a"\ndefault_cli="claude --print --dangerously-skip-permissions"\n'
        '[agent_clis.auggie]\ncommand="auggie --print --model x"\n'
        '[agent_clis.mine]\ncommand=["my agent","$HOME"]\ninput="argument"\ninput_option="-p"\n'
        'on_exit_zero="reprompt"\ntimeout_secs=9\nenv={A="b"}\n'
        '[agent_clis.claude]\ninput="file"\n'
    )
    assert town.default_cli == "claude"
    assert town.agent_clis["auggie"].input_option == "--instruction-file"
    mine = town.cli("mine").cli
    assert mine.argv == ("my agent", "$HOME")
    assert agent_clis.run_argv(mine, prompt="x", prompt_file=Path("/p")) == ("my agent", "$HOME", "-p", "x")
    assert (mine.on_exit_zero, mine.timeout_s, mine.env) == ("reprompt", 9, {"A": "b"})
    assert town.agent_clis["claude"].input == "file"
    assert "codex" in town.agent_clis


def test_a_cli_without_a_command_is_refused_unless_it_is_a_preset() -> None:
    assert "agent_clis.foo" in refusal('name="a"\n[agent_clis.foo]\nworkdir="x"').message


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_a_command_survives_being_written_as_text(words: list[str]) -> None:
    assert agent_clis.split_command(shlex.join(words), where="x") == tuple(words)
    assert agent_clis.split_command(words, where="x") == tuple(words)


# -- the environment ---------------------------------------------------------------------------------------------------


def test_containers_are_told_by_their_environment() -> None:
    told = {
        "BOROUGH_SERVER": "http://t:1",
        "TINYTOWN_AGENT_NAME": "w",
        "TINYTOWN_CA_FILE": "/ca",
        "BOROUGH_CA_FILE": "",
    }
    worker = worker_environment(told)
    assert (worker.server_url, worker.agent_name, worker.ca_file) == ("http://t:1", "w", Path("/ca"))
    assert container_environment({"TINYTOWN_REST_PORT": "9000"}).port == 9000
    with pytest.raises(Invalid, match="TINYTOWN_REST_PORT"):
        container_environment({"TINYTOWN_REST_PORT": "nine"})


WORKER_VARIABLES = (
    "BOROUGH_SERVER", "BOROUGH_TOKEN_FILE", "TINYTOWN_AGENT_NAME", "TINYTOWN_AGENT_ROLE", "TINYTOWN_AGENT_CLI",
    "BOROUGH_CA_FILE", "TINYTOWN_CA_FILE", "BOROUGH_SERVER_CERT_FILE", "BOROUGH_CERT_FILE", "TINYTOWN_CLIENT_CERT",
    "BOROUGH_KEY_FILE", "TINYTOWN_CLIENT_KEY",
)  # fmt: skip


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_worker_s_empty_variable_is_an_absent_one(blank: str) -> None:
    assert worker_environment(dict.fromkeys(WORKER_VARIABLES, blank)) == WorkerEnvironment()
    parsed = worker_command(
        worker_environment({**dict.fromkeys(WORKER_VARIABLES, blank), "BOROUGH_SERVER": "http://t"})
    )
    arguments = parsed.parse_args([])
    assert (arguments.role, arguments.cli, arguments.token_file, arguments.ca_file) == (None, None, None, None)
    assert arguments.name, "this machine's"
    assert set(re.findall(r"\b(?:BOROUGH|TINYTOWN)_[A-Z_]+", parsed.format_help())) == set(WORKER_VARIABLES)


# -- making a town -----------------------------------------------------------------------------------------------------


def test_a_new_town_is_whole_and_loads_without_a_warning(tmp_path: Path) -> None:
    made = create_town(tmp_path, name="My-Town")
    town = load_town(tmp_path, {})
    assert (made.name, town.name, town.warnings) == ("My-Town", "My-Town", ())
    assert {entry.name for entry in (tmp_path / ".tt").iterdir()} == {"agents", "logs", "tasks"}
    assert stat.S_IMODE((tmp_path / ".tt").stat().st_mode) == 0o700
    assert (tmp_path / ".gitignore").read_text() == ".tt\n"


def test_a_town_is_never_overwritten(tmp_path: Path) -> None:
    create_town(tmp_path, name="first")
    with pytest.raises(Conflict) as caught:
        create_town(tmp_path, name="second")
    assert caught.value.code == "town_exists"
    assert load_town(tmp_path, {}).name == "first"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "tinytown.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        create_town(tmp_path, name="a")
    assert not (tmp_path / "elsewhere").exists()


def test_a_planted_state_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".tt").symlink_to(tmp_path / "other")
    with pytest.raises(Conflict) as caught:
        create_town(tmp_path, name="a")
    assert caught.value.code == "state_folder_taken"


@pytest.mark.parametrize("before", ["*.pyc", "*.pyc\n", ".tt\n", "/.tt/\n"])
def test_gitignore_names_the_state_folder_once(tmp_path: Path, before: str) -> None:
    (tmp_path / ".gitignore").write_text(before)
    create_town(tmp_path, name="a")
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert [line.strip("/") for line in lines].count(".tt") == 1
    assert before.strip() in lines


def test_the_name_comes_from_repository_and_branch(tmp_path: Path) -> None:
    root = tmp_path / "my repo"
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/feature/login\n")
    assert proposed_name(root) == "my-repo-feature-login"
    (root / ".git" / "HEAD").write_text("0123456789abcdef\n")
    assert proposed_name(root) == "my-repo"


def test_the_name_of_a_linked_work_tree_is_the_repositorys(tmp_path: Path) -> None:
    git = tmp_path / "repo" / ".git" / "worktrees" / "w"
    git.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/part/auth\n")
    (git / "commondir").write_text("../..\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {git}\n")
    assert proposed_name(tree) == "repo-part-auth"


@given(st.text(max_size=80))
def test_a_proposed_name_is_always_allowed(folder: str) -> None:
    name = proposed_name(Path("/nowhere") / folder.replace("\0", ""))
    assert town_name(name) == name


# -- editing -----------------------------------------------------------------------------------------------------------


def test_a_changed_setting_keeps_the_comments(tmp_path: Path) -> None:
    create_town(tmp_path, name="a")
    before = (tmp_path / "tinytown.toml").read_text()
    change_town_setting(tmp_path, "townhall.rest_port", "9000")
    change_town_setting(tmp_path, "redis.url", "redis://h:1")
    change_town_setting(tmp_path, "townhall.rate_limit.enabled", "true")
    town = load_town(tmp_path, {})
    assert (town.townhall.rest_port, town.store.url) == (9000, "redis://h:1")
    assert town.townhall.rate_limit.enabled is True
    after = (tmp_path / "tinytown.toml").read_text()
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in after.splitlines() if line.startswith("#")
    ]
    assert read_town_setting(tmp_path, "townhall.rest_port") == 9000


@pytest.mark.parametrize(("key", "value"), [("townhall.rest_prt", "1"), ("townhall.rest_port", "x"), ("a..b", "1")])
def test_a_refused_change_leaves_the_file_alone(tmp_path: Path, key: str, value: str) -> None:
    create_town(tmp_path, name="a")
    before = (tmp_path / "tinytown.toml").read_bytes()
    with pytest.raises(Invalid):
        change_town_setting(tmp_path, key, value)
    assert (tmp_path / "tinytown.toml").read_bytes() == before


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was_set(text: str) -> None:
    def check(data: Any) -> None:
        if not isinstance(data["title"], str):
            raise Invalid("not text")

    changed = editing.with_setting('# kept\ntitle = "x"\n', "title", text, check=check, file="f")
    value = tomllib.loads(changed)["title"]
    try:
        literal = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        literal = text
    assert value == (literal if isinstance(literal, str) else text)
    assert changed.startswith("# kept\n")


def test_every_known_key_is_listed() -> None:
    keys = known_keys(TownFileSection)
    assert {"name", "townhall.auth.keys.0.expires_at", "agent_clis.<name>.command", "tasks.retention_days"} <= set(keys)


# -- the user's own ----------------------------------------------------------------------------------------------------


def test_the_users_file_is_private_and_its_clis_reach_every_town(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert load_global(home).file.default_cli == "claude"
    change_global_setting(home, "default_cli", "codex")
    change_global_setting(home, "redis.password", "12345")
    change_global_setting(home, "agent_clis.mine", "my-agent --print")
    path = tmp_path / ".tt" / "config.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_global_setting(home, "redis.password") == "12345"
    with pytest.raises(Invalid):
        change_global_setting(home, "redis.prot", "1")
    with pytest.raises(NotFound):
        read_global_setting(home, "conductor_cli")
    town = tmp_path / "town"
    town.mkdir()
    create_town(town, name="a")
    assert load_settings(town, home).cli("mine").cli.argv == ("my-agent", "--print")


def test_an_existing_users_file_of_the_reference_is_accepted(tmp_path: Path) -> None:
    (tmp_path / ".tt").mkdir()
    path = tmp_path / ".tt" / "config.toml"
    path.write_text(
        'default_cli = "claude"\n[redis]\nhost = "127.0.0.1"\nport = 16379\npassword="p"\nuse_central=true\n'
    )
    path.chmod(0o644)
    warnings = load_global({"HOME": str(tmp_path)}).warnings
    assert len(warnings) == 2
    assert "p\n" not in "".join(warnings)


def test_towns_are_listed_once_by_path_also_when_many_register_at_once(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    threads = [
        threading.Thread(target=register_town, args=(home, tmp_path / str(n % 5), f"town-{n % 5}")) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(town.name for town in registered_towns(home)) == [f"town-{n}" for n in range(5)]
    register_town(home, tmp_path / "3", "renamed")
    assert "renamed" in {town.name for town in registered_towns(home)}
    assert forget_town(home, tmp_path / "3")
    assert not forget_town(home, tmp_path / "3")
    assert len(registered_towns(home)) == 4
