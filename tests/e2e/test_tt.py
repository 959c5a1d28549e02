"""Every ``tt`` command against a real server, as people type it: in a pipe and with ``--json``, with its exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until

NOWHERE = "6f1d7a2e-0000-4000-8000-000000000000"
AGENT = """
import os, subprocess, sys, time
text = sys.stdin.read()
task = os.environ["TINYTOWN_TASK_ID"]

def tt(*words):
    done = subprocess.run(["tt", *words], capture_output=True, text=True)
    print(" ".join(words[:2]), "->", done.returncode, done.stdout.strip(), done.stderr.strip().replace("\\n", " | "))

if "please sleep" in text:
    print("asleep", flush=True)
    time.sleep(600)
if "please break" in text:
    print("it broke")
    sys.exit(7)
if "please use tt" in text:
    tt("task", "current")
    tt("send", "supervisor", "half of it is done", "--info")
    tt("kill", os.environ["TINYTOWN_AGENT_NAME"])
    tt("auth", "keys", "list")
    tt("task", "complete", task, "--result", "done by tt itself")
    tt("task", "complete", task, "--result", "said again")
print("did it")
"""


def new_town(root: Path, **settings: str) -> RunningTown:
    (root / "agent.py").write_text(AGENT)
    cli = f"{sys.executable} {root / 'agent.py'}"
    return start_town(root, settings={"default_cli": cli, "tasks.retry_base_ms": "50", **settings})


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    running = new_town(tmp_path_factory.mktemp("cli"))
    yield running
    assert stop_town(running) == 0


@pytest.fixture(autouse=True)
def _without_agents(town: RunningTown) -> Iterator[None]:
    """Leave no agent behind that would take the next test's work."""
    yield
    town.ok("POST", "/v1/agents/prune", {"all": True})


def said(town: RunningTown, *words: str) -> str:
    """Return what a command printed, which has to succeed."""
    return town.tt(*words).stdout


def document(town: RunningTown, *words: str) -> Any:
    """Return the one JSON document of a command that has to succeed."""
    return json.loads(town.tt(*words, "--json").stdout)


def refused(town: RunningTown, code: int, *words: str) -> str:
    """Return what a command says that has to fail with ``code``: what, why and what next, for people and programs."""
    done = town.tt(*words, check=False)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    labels = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert [label for label in labels if label in {"error", "why", "next"}] == ["error", "why", "next"], done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def task_in(town: RunningTown, state: str, task_id: str) -> Any:
    def look() -> Any:
        found = town.ok("GET", f"/v1/tasks/{task_id}")
        return found if found["state"] == state else None

    return until(look)


# -- the town ----------------------------------------------------------------------------------------------------------


def test_the_town_shows_itself(town: RunningTown) -> None:
    assert f"root\t{town.root}" in said(town, "status")
    assert document(town, "status")["root"] == str(town.root)
    assert document(town, "status", "--deep")["tasks"] is not None
    assert document(town, "status", "--tasks")["tasks_by_agent"] == {}
    assert [one["state"] for one in document(town, "towns")["towns"] if one["path"] == str(town.root)] == ["running"]
    assert document(town, "list") == {"agents": [], "count": 0}
    assert document(town, "start")["address"] == town.url
    assert document(town, "bootstrap")["needed"] is False


def test_settings_are_read_and_changed(town: RunningTown) -> None:
    assert document(town, "config", "--here")["settings"]["max_agents"] == 10
    assert said(town, "config", "--here", "max_agents").strip() == "10"
    town.tt("config", "default_cli", "codex")
    assert document(town, "config", "default_cli")["value"] == "codex"
    assert "max_agents" in refused(town, 1, "config", "--here", "max_agentz", "3")
    assert said(town, "config", "--here", "max_agents").strip() == "10"


def test_a_second_init_changes_nothing(town: RunningTown) -> None:
    before = (town.root / "tinytown.toml").read_text()
    assert "a town already" in refused(town, 1, "init", "--name", "other")
    assert (town.root / "tinytown.toml").read_text() == before


def test_keys_are_made_listed_rotated_and_revoked(town: RunningTown) -> None:
    made = document(town, "auth", "gen-key")
    assert made["hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    added = document(town, "auth", "keys", "add", "ci", "--scope", "town.read", "--days", "2")
    written = (town.root / "tinytown.toml").read_text()
    assert "$argon2id$" in written
    assert added["key"] not in written
    rotated = document(town, "auth", "keys", "rotate", "ci", "--grace-hours", "1")
    assert rotated["id"] == "ci-2"
    assert rotated["key"] != added["key"]
    listed = {key["id"]: key for key in document(town, "auth", "keys", "list")["keys"]}
    assert listed["ci"]["expires_at"]
    assert listed["ci-2"]["scopes"] == ["town.read"]
    for name in ("ci", "ci-2"):
        town.tt("auth", "keys", "revoke", name)
    assert document(town, "auth", "keys", "list")["keys"] == []
    assert refused(town, 5, "auth", "keys", "revoke", "ci")


def test_the_doctor_finds_the_town_healthy(town: RunningTown) -> None:
    found = document(town, "doctor")
    assert found["healthy"] is True
    by_name = {finding["what"]: finding for finding in found["findings"]}
    assert by_name["server"]["detail"].startswith(town.url)
    assert by_name["durability"]["detail"] == "always"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(town: RunningTown, shell: str) -> None:
    assert "_TT_COMPLETE" in said(town, "completion", shell)


def test_completion_knows_the_commands(town: RunningTown) -> None:
    asked = {"_TT_COMPLETE": "bash_complete", "COMP_WORDS": "tt re", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'tt'; from borough.cli.tt import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    words = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert {"restart", "reclaim", "recover", "resume", "reset", "restore"} <= words, done


# -- exit codes --------------------------------------------------------------------------------------------------------


def test_exit_codes_tell_kinds_of_failure_apart(town: RunningTown, tmp_path: Path) -> None:
    assert "Did you mean 'spawn'" in refused(town, 2, "spwan")
    assert "NAME" in refused(town, 2, "spawn")
    assert refused(town, 2, "assign", "ada", "  ")
    assert "there is no agent nobody" in refused(town, 5, "assign", "nobody", "work")
    assert refused(town, 5, "task", "show", NOWHERE)
    assert refused(town, 5, "task", "cancel", NOWHERE)
    assert refused(town, 5, "kill", "nobody")
    assert "bad-name" in refused(town, 1, "spawn", "bad name")
    assert refused(town, 3, "status", "--town", str(tmp_path))
    assert refused(town, 3, "status", "--server", "http://127.0.0.1:9")
    told = town.tt("task", "show", NOWHERE, "--json", check=False)
    assert told.stdout == ""
    assert json.loads(told.stderr)["exit"] == told.returncode == 5


# -- agents and tasks --------------------------------------------------------------------------------------------------


def test_the_life_of_an_agent_and_its_task(town: RunningTown) -> None:
    spawned = document(town, "spawn", "ada", "--role", "backend", "--nickname", "Ada")
    assert (spawned["name"], spawned["role_id"], spawned["nickname"]) == ("ada", "backend", "Ada")
    assert refused(town, 1, "spawn", "ada")
    task = said(town, "assign", "ada", "count the modules").strip()
    task_in(town, "completed", task)
    assert document(town, "task", "show", task)["result"].strip() == "did it"
    assert "Result:\ndid it" in said(town, "task", "show", task)
    assert said(town, "task", "log", task) == "did it\n"
    assert document(town, "task", "log", task)["text"] == "did it\n"
    assert document(town, "task", "explain", task)["state"] == "completed"
    assert "why\tit waits for work" in said(town, "explain", "ada")
    listed = document(town, "task", "list", "--agent", "ada", "--state", "completed")
    assert [one["task_id"] for one in listed["tasks"]] == [task]
    assert said(town, "task", "list", "--agent", "ada").split("\t")[:4] == [task, "completed", "1/3", "ada"]
    assert refused(town, 5, "task", "current", "ada")
    assert refused(town, 1, "task", "cancel", task)
    happened = [event["event_type"] for event in document(town, "history", "-a", "ada")["events"]]
    assert {"agent_spawned", "task_assigned", "task_completed"} <= set(happened)
    assert document(town, "events", "--task", task, "-c", "1")["events"][0]["event_type"] == "task_completed"

    assert refused(town, 1, "wait", "ada", "--timeout", "0.2")
    assert said(town, "interrupt", "ada") == "ada paused\n"
    assert said(town, "resume", "ada") == "ada resumed\n"
    assert said(town, "close", "ada") == "ada draining\n"
    assert document(town, "wait", "ada", "--timeout", "30")["state"] == "Stopped"
    assert document(town, "prune") == {"removed": 1, "agents": ["ada"], "dry_run": True}
    assert said(town, "restart", "ada") == "ada restarted\n"
    assert said(town, "kill", "ada") == "ada stopped\n"
    assert said(town, "prune", "--yes") == "removed ada\n"
    assert document(town, "list")["count"] == 0


def test_the_backlog_and_its_commands(town: RunningTown) -> None:
    town.ok("POST", "/v1/workers", {"name": "carol", "role_id": "ops"})
    ids = [said(town, "backlog", "add", f"job {n}", "--role", "nobody", "--tags", "a,b").strip() for n in range(4)]
    assert [entry["task_id"] for entry in document(town, "backlog", "list")["backlog"]] == ids
    assert said(town, "backlog", "list").splitlines()[0].split("\t") == [ids[0], "nobody", "", "a,b", "job 0"]
    assert said(town, "backlog", "claim", ids[0], "carol") == f"{ids[0]} is now with carol\n"
    assert said(town, "backlog", "claim", ids[0], "carol") == f"{ids[0]} is now with carol\n"  # again changes nothing
    assert refused(town, 5, "backlog", "remove", ids[0])
    assert said(town, "backlog", "remove", ids[1]) == f"removed {ids[1]}\n"
    assert refused(town, 5, "backlog", "remove", ids[1])
    assert document(town, "backlog", "assign-all", "carol") == {"assigned": 2, "tasks": ids[2:]}
    assert document(town, "status", "--tasks")["tasks_by_agent"]["carol"][0]["task_id"] == ids[0]

    assert document(town, "task", "complete", ids[0], "--result", "by hand")["result"] == "by hand"
    assert document(town, "task", "fail", ids[2], "no way", "--final")["state"] == "failed"
    assert [one["last_error"] for one in document(town, "dead", "list")["tasks"]] == ["no way"]
    assert document(town, "dead", "replay")["tasks"] == [ids[2]]
    assert said(town, "task", "cancel", ids[2], "--reason", "no more") == f"{ids[2]} is cancelled\n"
    assert document(town, "task", "retry", ids[2])["state"] in {"pending", "assigned"}
    town.tt("task", "cancel", ids[2])
    piped = subprocess.run(
        [sys.executable, "-m", "borough.cli.tt", "backlog", "add", "-", "--role", "nobody"],
        cwd=town.root, input="line one\nline two\n", capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert document(town, "task", "show", piped.stdout.strip())["description"] == "line one\nline two\n"
    town.tt("backlog", "remove", piped.stdout.strip())

    town.tt("kill", "carol")
    assert [one["task_id"] for one in document(town, "reclaim")["tasks"]] == [ids[3]]
    assert document(town, "reclaim", "--to-backlog")["reclaimed"] == 1
    assert [entry["task_id"] for entry in document(town, "backlog", "list")["backlog"]] == [ids[3]]
    assert document(town, "reclaim", "--orphan-tasks")["action"] == "list"
    assert document(town, "recover")["recovered"] == 0
    town.tt("backlog", "remove", ids[3])


def test_messages_are_sent_looked_at_read_and_acknowledged(town: RunningTown) -> None:
    town.ok("POST", "/v1/workers", {"name": "dora"})
    news = said(town, "send", "dora", "the build is green", "--info", "--urgent").strip()
    [entry] = document(town, "inbox", "dora")["messages"]
    assert (entry["id"], entry["type"], entry["urgent"]) == (news, "info", True)
    assert document(town, "inbox", "dora", "--read", news)["text"] == "the build is green"
    assert "dora" in json.dumps(document(town, "inbox", "--all"))
    assert document(town, "inbox", "dora", "--ack", news) == {"acknowledged": 1}
    assert document(town, "inbox", "dora")["messages"] == []
    question = said(town, "send", "dora", "which branch?", "--query").strip()
    assert document(town, "task", "show", question)["kind"] == "query"
    town.tt("send", "supervisor", "ready", "--ack")
    assert document(town, "inbox", "--ack-all")["acknowledged"] >= 1
    assert refused(town, 2, "send", "dora", "x", "--query", "--info")
    town.tt("task", "cancel", question)


def test_failures_are_tried_again_and_then_wait_as_dead_letters(town: RunningTown) -> None:
    town.tt("spawn", "eve")
    task = said(town, "assign", "eve", "please break", "--max-attempts", "2").strip()
    failed = task_in(town, "failed", task)
    assert failed["attempts"] == 2
    assert "exit code 7" in failed["last_error"]
    assert said(town, "task", "log", task, "--attempt", "1") == "it broke\n"
    assert refused(town, 5, "task", "log", task, "--attempt", "9")
    assert "exit code 7" in said(town, "task", "explain", task)
    assert task in said(town, "dead", "list")


def test_a_killed_agents_task_is_done_by_its_next_life(town: RunningTown) -> None:
    town.tt("spawn", "finn")
    task = said(town, "assign", "finn", "please sleep").strip()
    task_in(town, "running", task)
    assert document(town, "task", "current", "finn")["task_id"] == task
    follower = Following(town, "task", "log", task, "--follow")
    assert follower.line() == "asleep\n"
    town.tt("kill", "finn")
    assert follower.ended() == 0
    assert document(town, "task", "show", task)["state"] in {"assigned", "pending", "delayed"}
    town.tt("task", "cancel", task)


class Following:
    """A command that goes on; its lines as they come."""

    def __init__(self, town: RunningTown, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "borough.cli.tt", *words],
            cwd=town.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(iter(self.process.stdout.readline, ""))

    def line(self, holding: str = "") -> str:
        """Return the first line that holds ``holding``, once it is there."""
        found: str = until(lambda: next((line for line in list(self._lines) if holding in line), None))
        return found

    def ended(self) -> int:
        """Wait for its end and return the exit code."""
        code = self.process.wait(timeout=90)
        self._reader.join(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


# -- the town from inside an attempt -----------------------------------------------------------------------------------


def test_an_agents_cli_uses_tt_in_its_own_name_and_no_more(town: RunningTown) -> None:
    town.tt("spawn", "gwen")
    task = said(town, "assign", "gwen", "please use tt").strip()
    done = task_in(town, "completed", task)
    assert done["result"] == "done by tt itself"
    log = until(lambda: (text := said(town, "task", "log", task)).endswith("did it\n") and text)
    current, sent, killed, keys, completed, again = [line for line in log.splitlines() if " -> " in line]
    assert task in log
    assert current.startswith("task current -> 0")
    assert sent.startswith("send supervisor -> 0")
    assert killed.startswith("kill gwen -> 4")
    assert "an agent may not do this with its own token" in killed
    assert keys.startswith("auth keys -> 0")
    assert completed.startswith("task complete -> 0")
    assert again.startswith("task complete -> ")
    gwen = town.ok("GET", "/v1/agents/gwen")
    [message] = document(town, "inbox")["messages"]
    assert message["from"] == gwen["id"]
    assert document(town, "task", "show", task)["result"] == "done by tt itself"
    town.tt("inbox", "--ack-all")


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_are_followed_live_and_over_a_restart_of_the_server(tmp_path: Path) -> None:
    town = new_town(tmp_path)
    try:
        old = said(town, "backlog", "add", "old", "--role", "nobody").strip()
        follower = Following(town, "events", "--follow", "--json", "--type", "task_queued", "-c", "1")
        assert follower.line(old)
        before = said(town, "backlog", "add", "before", "--role", "nobody").strip()
        assert json.loads(follower.line(before))["event_type"] == "task_queued"
        port = int(town.url.rpartition(":")[2])
        assert stop_town(town) == 0
        town = start_town(tmp_path, port=port)
        after = said(town, "backlog", "add", "after", "--role", "nobody").strip()
        assert json.loads(follower.line(after))["task_id"] == after
        follower.process.send_signal(signal.SIGINT)
        assert follower.ended() == 130
    finally:
        stop_town(town)


# -- planning ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_given_out_once(town: RunningTown) -> None:
    assert refused(town, 5, "plan")
    town.tt("plan", "--init")
    assert refused(town, 1, "plan", "--init")
    (town.root / "tasks.toml").write_text(
        '[[tasks]]\nid = "one"\ndescription = "first"\ntags = ["x"]\n\n'
        '[[tasks]]\nid = "two"\ndescription = "second"\nparent = "one"\n'
    )
    assert [task["id"] for task in document(town, "plan")["tasks"]] == ["one", "two"]
    town.ok("POST", "/v1/workers", {"name": "hal", "role_id": "none"})
    first = document(town, "sync", "push")["tasks"]
    assert [row["what"] for row in first] == ["given out", "given out"]
    second = document(town, "sync", "push")["tasks"]
    assert [(row["what"], row["task_id"]) for row in second] == [("there already", row["task_id"]) for row in first]
    ids = [row["task_id"] for row in first]
    assert document(town, "task", "show", ids[1])["parent_id"] == ids[0]
    town.tt("task", "complete", ids[0])
    town.tt("sync", "pull")
    assert [task["status"] for task in document(town, "plan")["tasks"]] == ["completed", "pending"]
    town.tt("backlog", "remove", ids[1])


def test_the_conductor_is_the_chosen_cli_with_the_towns_context(town: RunningTown) -> None:
    stand_in = town.root / "claude"
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stand_in.chmod(0o755)
    town.tt("config", "--here", "conductor_cli", "claude")
    done = subprocess.run(
        [sys.executable, "-m", "borough.cli.tt", "conductor"],
        cwd=town.root,
        env={**os.environ, "PATH": f"{town.root}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [*_, context] = json.loads(done.stdout)
    assert town.root.name.replace("_", "-") in context
    assert "tt spawn" in context


# -- backup and reset --------------------------------------------------------------------------------------------------


def test_a_saved_town_comes_back_whole(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    town = new_town(tmp_path / "one")
    kept = said(town, "backlog", "add", "keep me", "--role", "nobody").strip()
    backup = tmp_path / "town.tar.gz"
    assert refused(town, 1, "save", str(backup))
    assert stop_town(town) == 0
    town.tt("save", str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600
    (tmp_path / "two").mkdir()
    run_tool("borough.cli.tt", "restore", str(backup), "--town", str(tmp_path / "two"), cwd=tmp_path)
    restored = start_town(tmp_path / "two")
    try:
        assert document(restored, "task", "show", kept)["description"] == "keep me"
        assert refused(restored, 1, "restore", str(backup))
        assert refused(restored, 1, "reset")
        assert document(restored, "reset", "--force", "--agents-only")["removed"] == 0
        assert document(restored, "backlog", "list")["count"] == 1
        assert document(restored, "reset", "--force")["removed"] > 0
        assert document(restored, "backlog", "list")["count"] == 0
    finally:
        stop_town(restored)


def test_reset_wants_the_towns_name_typed(town: RunningTown) -> None:
    import pty  # noqa: PLC0415 - only here

    town.tt("backlog", "add", "stays", "--role", "nobody")
    name = document(town, "status")["name"]
    for typed, code in (("yes", 1), (name, 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "borough.cli.tt", "reset"],
            cwd=town.root, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, f"{typed}\n".encode())
        assert process.wait(timeout=30) == code
        os.close(ours)
        assert document(town, "backlog", "list")["count"] == (1 if code else 0)


# -- a server when one is needed ---------------------------------------------------------------------------------------


def test_a_server_is_started_when_it_is_needed_and_only_one(tmp_path: Path) -> None:
    run_tool("borough.cli.tt", "init", "--name", "auto", cwd=tmp_path)
    port = free_port()
    run_tool("borough.cli.tt", "config", "--here", "townhall.rest_port", str(port), cwd=tmp_path)
    absent = run_tool("borough.cli.tt", "status", "--no-start", cwd=tmp_path, check=False)
    assert absent.returncode == 3
    told_not_to = run_tool("borough.cli.tt", "status", cwd=tmp_path, check=False, environ={"TT_NO_START": "1"})
    assert told_not_to.returncode == 3
    assert not (tmp_path / ".tt" / "server.json").exists()
    try:
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "borough.cli.tt", "status", "--json"],
                cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        told = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert [json.loads(out)["name"] for out, _ in told] == ["auto", "auto"]
        lines = [line for _, err in told for line in err.splitlines()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("started a server for this town: http://127.0.0.1:")
        again = run_tool("borough.cli.tt", "list", cwd=tmp_path)
        assert again.stderr == ""
    finally:
        stopped = run_tool("borough.cli.tt", "stop", "--server", cwd=tmp_path)
    assert "the server has ended" in stopped.stderr
    assert run_tool("borough.cli.tt", "status", "--no-start", cwd=tmp_path, check=False).returncode == 3


def free_port() -> int:
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
