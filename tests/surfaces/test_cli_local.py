"""What is local by nature: towns, settings, keys, plans, completion, backups. No server is needed."""

import fcntl
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import argon2
import pytest

from borough.cli.leading import conductor_command, context_text
from tests.surfaces.scripted import CommandLine, agent


def test_init_makes_a_town_and_never_overwrites_one(local_tt: CommandLine, clean: Path) -> None:
    ran = local_tt("init", "--name", "mytown", "--json")
    assert ran.document["name"] == "mytown"
    assert tomllib.loads((clean / "tinytown.toml").read_text())["name"] == "mytown"
    assert stat.S_IMODE((clean / ".tt").stat().st_mode) == 0o700
    before = (clean / "tinytown.toml").read_bytes()
    again = local_tt("init", "--name", "other")
    assert again.code == 1
    assert "is a town already" in again.err
    assert (clean / "tinytown.toml").read_bytes() == before


def test_towns_are_remembered_and_none_is_started(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "mytown")
    found = local_tt("towns", "--json").document["towns"]
    assert [(town["name"], town["path"], town["state"]) for town in found] == [("mytown", str(clean), "offline")]
    (clean / "tinytown.toml").unlink()
    assert local_tt("towns", "--json").document["towns"][0]["state"] == "no tinytown.toml"


def test_settings_are_set_read_and_refused(local_tt: CommandLine) -> None:
    assert local_tt("config", "default_cli", "codex").code == 0
    assert local_tt("config", "default_cli").out == "codex\n"
    refused = local_tt("config", "defualt_cli", "codex")
    assert refused.code == 1
    assert "default_cli" in refused.err
    assert local_tt("config", "conductor_cli").code == 5


def test_secrets_among_the_settings_are_not_shown(local_tt: CommandLine) -> None:
    local_tt("config", "redis.password", "hunter2")
    assert local_tt("config").out == "redis.password\t****\n"


def test_a_towns_own_setting_is_changed_in_its_file(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    assert local_tt("config", "--here", "townhall.rest_port", "8099").code == 0
    assert tomllib.loads((clean / "tinytown.toml").read_text())["townhall"]["rest_port"] == 8099
    assert local_tt("config", "--here", "townhall.rest_port").out == "8099\n"


def test_gen_key_prints_key_and_hash_alone_on_their_lines(local_tt: CommandLine) -> None:
    lines = local_tt("auth", "gen-key").out.splitlines()
    key = next(line for line in lines if re.fullmatch("[0-9a-f]{64}", line))
    phc = next(line for line in lines if line.startswith("$argon2id$"))
    assert phc.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert argon2.PasswordHasher().verify(phc, key)
    assert "\n".join(lines).count(key) == 1
    assert any(line.startswith("curl ") and line.endswith(key[:8]) for line in lines)
    assert f'api_key_hash = "{phc}"' in lines


def test_gen_key_as_json(local_tt: CommandLine) -> None:
    document = local_tt("auth", "gen-key", "--json").document
    assert argon2.PasswordHasher().verify(document["hash"], document["key"])


def keys_in(clean: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads((clean / "tinytown.toml").read_text())["townhall"]["auth"]["keys"]
    return found


def test_keys_are_added_rotated_and_revoked(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    added = local_tt("auth", "keys", "add", "ci", "--scope", "town.read", "--days", "30", "--json").document
    assert argon2.PasswordHasher().verify(str(keys_in(clean)[0]["hash"]), added["key"])
    assert added["key"] not in (clean / "tinytown.toml").read_text()
    assert local_tt("auth", "keys", "add", "ci").code == 1
    rotated = local_tt("auth", "keys", "rotate", "ci", "--grace-hours", "1", "--json").document
    assert (rotated["id"], rotated["scopes"]) == ("ci-2", ["town.read"])
    assert [key["id"] for key in keys_in(clean)] == ["ci", "ci-2"]
    assert "expires_at" not in keys_in(clean)[1]
    listed = local_tt("auth", "keys", "list", "--json").document["keys"]
    assert [key["id"] for key in listed] == ["ci", "ci-2"]
    assert "hash" not in listed[0]
    assert local_tt("auth", "keys", "revoke", "ci").code == 0
    assert [key["id"] for key in keys_in(clean)] == ["ci-2"]
    assert local_tt("auth", "keys", "revoke", "ci").code == 5


def test_a_key_that_the_town_would_refuse_leaves_the_file_alone(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    before = (clean / "tinytown.toml").read_bytes()
    assert local_tt("auth", "keys", "add", "no spaces please").code == 1
    assert (clean / "tinytown.toml").read_bytes() == before


def test_the_comments_of_a_towns_file_survive_its_keys(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    comments = [line for line in (clean / "tinytown.toml").read_text().splitlines() if line.startswith("#")]
    local_tt("auth", "keys", "add", "ci")
    after = (clean / "tinytown.toml").read_text().splitlines()
    assert [line for line in after if line.startswith("#")] == comments


def test_a_plan_is_begun_once_and_shown(local_tt: CommandLine, clean: Path) -> None:
    local_tt("init", "--name", "t")
    assert local_tt("plan").code == 5
    assert local_tt("plan", "--init").code == 0
    assert local_tt("plan", "--init").code == 1
    assert local_tt("plan").out == "first\tpending\tbacklog\t\tSay what is to be done\n"


@pytest.mark.parametrize(
    "text",
    [
        '[[tasks]]\nid = "a"\ndescription = "x"\n[[tasks]]\nid = "a"\ndescription = "y"\n',
        '[[tasks]]\nid = ""\ndescription = "x"\n',
        '[[tasks]]\nid = "a"\ndescription = " "\n',
        "[[tasks]\n",
        '[[tasks]]\nid = "a"\ndescription = "x"\ntag = []\n',
    ],
    ids=["twice", "no id", "no words", "no TOML", "unknown key"],
)
def test_a_plan_that_cannot_be_followed_is_refused(local_tt: CommandLine, clean: Path, text: str) -> None:
    local_tt("init", "--name", "t")
    (clean / "tasks.toml").write_text(text)
    ran = local_tt("plan")
    assert ran.code == 1
    assert "tasks.toml" in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(local_tt: CommandLine, shell: str) -> None:
    script = local_tt("completion", shell).out
    assert "_TT_COMPLETE" in script
    assert shell in script


def test_completion_knows_commands_without_importing_them() -> None:
    code = (
        "import sys; from borough.cli.errors import run; from borough.cli.tt import program\n"
        "try:\n run(program, 'tt', [])\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('borough.cli.tt_')), file=sys.stderr)"
    )
    environment = {**os.environ, "_TT_COMPLETE": "bash_complete", "COMP_WORDS": "tt re", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == {
        *("resume", "restart", "recover", "reclaim", "restore", "reset")
    }
    assert done.stderr.strip() == ""


def test_a_saved_town_comes_back(local_tt: CommandLine, clean: Path, tmp_path: Path) -> None:
    local_tt("init", "--name", "t")
    (clean / ".tt" / "data").mkdir()
    (clean / ".tt" / "data" / "log.aof").write_bytes(b"\0work")
    (clean / ".tt" / "server.json").write_text("{}")
    (clean / ".tt" / "link").symlink_to("/etc/passwd")
    file = tmp_path / "saved.tar.gz"
    assert local_tt("save", str(file)).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = tmp_path / "other"
    assert local_tt("restore", str(file), "--town", str(other)).code == 0
    assert (other / ".tt" / "data" / "log.aof").read_bytes() == b"\0work"
    assert tomllib.loads((other / "tinytown.toml").read_text())["name"] == "t"
    assert not (other / ".tt" / "server.json").exists()
    assert not (other / ".tt" / "link").exists()


def test_restore_replaces_a_town_only_when_told_and_keeps_the_old_one(
    local_tt: CommandLine, clean: Path, tmp_path: Path
) -> None:
    local_tt("init", "--name", "t")
    local_tt("save", str(tmp_path / "saved"))
    (clean / ".tt" / "newer").write_text("kept")
    assert local_tt("restore", str(tmp_path / "saved")).code == 1
    assert (clean / ".tt" / "newer").exists()
    assert local_tt("restore", str(tmp_path / "saved"), "--yes").code == 0
    assert not (clean / ".tt" / "newer").exists()
    assert [path.read_text() for path in clean.glob(".tt.before-*/.tt/newer")] == ["kept"]


def test_the_fleet_of_a_town_is_not_saved_and_stays_where_its_machines_run(
    local_tt: CommandLine, clean: Path, tmp_path: Path
) -> None:
    local_tt("init", "--name", "t")
    disk = clean / ".tt" / "fleet" / "runtime" / "disk"
    disk.parent.mkdir(parents=True)
    disk.write_text("of a machine that runs")
    file, other = tmp_path / "saved", tmp_path / "other"
    assert local_tt("save", str(file)).code == 0
    assert local_tt("restore", str(file), "--town", str(other)).code == 0
    assert not (other / ".tt" / "fleet").exists()
    assert local_tt("restore", str(file), "--yes").code == 0
    assert disk.read_text() == "of a machine that runs"
    assert not list(clean.glob(".tt.before-*/.tt/fleet"))


def test_what_is_no_backup_is_refused(local_tt: CommandLine, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    ran = local_tt("restore", str(tmp_path / "text"))
    assert ran.code == 1
    assert "is not a saved town" in ran.err
    assert not (clean / "tinytown.toml").exists()


@pytest.mark.parametrize(
    ("argv", "command", "reads_file"),
    [
        (
            ["claude", "--print", "--dangerously-skip-permissions"],
            ["claude", "--dangerously-skip-permissions", "TEXT"],
            0,
        ),
        (["codex", "exec", "--model", "x"], ["codex", "--model", "x", "TEXT"], 0),
        (["auggie", "--print"], ["auggie", "--instruction-file", "/c.md"], 0),
        (["aider", "--yes", "--message"], ["aider", "--yes", "--message-file", "/c.md"], 0),
        (["/opt/mine", "--print"], ["/opt/mine", "--print"], 1),
    ],
)
def test_a_conductors_cli_is_started_for_a_conversation(argv: list[str], command: list[str], reads_file: int) -> None:
    assert conductor_command(argv, file=Path("/c.md"), text="TEXT") == (command, bool(reads_file))


def test_a_conductor_is_told_who_is_here() -> None:
    text = context_text(
        {"name": "t", "agents": [agent(current_scope="x\n# not a heading")], "tasks": {"pending": 2, "failed": 0}},
        "http://127.0.0.1:1",
    )
    assert "- ada [ada]: idle, 2 waiting, works on: x⏎# not a heading" in text
    assert "2 pending\n" in text


def test_doctor_finds_and_mends(local_tt: CommandLine, clean: Path) -> None:
    found = {one["what"]: one for one in local_tt("doctor", "--json").document["findings"]}
    assert found["town folder"]["mend"] == "tt init"
    assert found["Python"]["state"] == "ok"
    assert found["server"] == {"what": "server", "state": "note", "detail": "none runs", "mend": "tt start"}
    layers = ("bubblewrap", "user namespaces", "seccomp", "egress listener", "Landlock", "control groups")
    for what in layers if found["bubblewrap"]["state"] == "ok" else layers[:1]:
        assert found[what]["state"] == "ok" or (found[what]["detail"] and found[what]["mend"]), what
    local_tt("init", "--name", "t")
    (clean / "tinytown.toml").write_text('name = "t"\nmax_agent = 3\n')
    ran = local_tt("doctor", "--json")
    assert ran.code == 1
    broken = {one["what"]: one for one in ran.document["findings"]}["settings"]
    assert broken["state"] == "no"
    assert "max_agents" in broken["mend"]


def test_bootstrap_says_that_nothing_is_needed(local_tt: CommandLine) -> None:
    assert local_tt("bootstrap", "8.0", "-c", "claude").code == 0
    assert local_tt("bootstrap", "--json").document["needed"] is False


def test_a_town_whose_store_works_is_not_saved(
    local_tt: CommandLine, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_tt("init", "--name", "t")
    (clean / ".tt" / "store").mkdir()
    monkeypatch.setattr("borough.cli.tt_backup._STORE_ENDS_WITHIN_S", 0.0)
    with (clean / ".tt" / "store" / "data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = local_tt("save", str(tmp_path / "saved"))
    assert ran.code == 1
    assert "the town's store still runs" in ran.err
    assert not (tmp_path / "saved").exists()
    assert local_tt("save", str(tmp_path / "saved")).code == 0
