"""Borough as four programs, ``agentd``, ``townhall``, ``tt-ctl`` and ``tt-agent``, on shared stores.

The three runs of the demonstration are worked this way too, and the writer of the ledger is killed in between.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.servers import running_server
from tests.e2e.conftest import RunningTown, run_tool, start_town, stop_town, until
from tests.e2e.daemon import ROOT, RunningDaemon, start_daemon
from tests.e2e.fleet_programs import KEY, Api, Program, free_port, host_program, program

SURVEYOR = [sys.executable, "-m", "borough.examples.surveyor"]
MANIFEST = files("borough.examples").joinpath("surveyor.yaml")
WRITTEN = re.compile(r"written by (\S+) \d+ \S+?(?:, this program)?, epoch (\d+); 0 handed in and not sealed")
OVER = {"succeeded", "failed", "refused", "cancelled", "killed"}


@dataclass
class Four:
    """The four programs, and how to speak to them."""

    agentd: RunningDaemon
    town: RunningTown
    ctl: Program
    fleet: Api

    def stop(self) -> None:
        self.agentd.stop()

    def begun(self, task: str, command: list[str], **more: Any) -> dict[str, Any]:
        body = {"task": task, "manifest": MANIFEST.read_text(), "command": command, "image": "host", **more}
        run: dict[str, Any] = self.agentd.ok("POST", "/v1/runs", body)
        return run

    def surveyed(self, task: str, **more: Any) -> dict[str, Any]:
        return self.begun(
            task, SURVEYOR, source={"kind": "folder", "path": str(self.agentd.folder / "sources")}, **more
        )

    def comes_to(self, run: dict[str, Any], *states: str) -> dict[str, Any]:
        def holds() -> dict[str, Any] | None:
            now: dict[str, Any] = self.agentd.ok("GET", f"/v1/runs/{run['id']}?wait=1")
            assert now["state"] in states or now["state"] not in OVER, (now["state"], now["reason"], now["result"])
            return now if now["state"] in states else None

        found: dict[str, Any] = until(holds)
        return found

    def writers(self) -> dict[str, str]:
        """Return what the programs that answer say of who writes the ledger."""
        told = {
            "townhall": self.town.ok("GET", "/ready")["ledger"],
            "tt-ctl": self.fleet.ask("GET", "/ready")[1]["ledger"],
        }
        if self.agentd.process.poll() is None:
            told["agentd"] = self.agentd.ok("GET", "/health")["ledger"]
        return told

    def writer(self) -> tuple[str, int] | None:
        """Return who writes the ledger and the epoch, where all agree and nothing waits."""
        said = {WRITTEN.sub(r"\1 \2", text) for text in self.writers().values()}
        name, _, epoch = said.pop().partition(" ")
        return (name, int(epoch)) if not said and epoch.isdigit() else None


@pytest.fixture(scope="module")
def four() -> Iterator[Four]:
    with ExitStack() as undo:
        # Not below pytest's own folder: the path of a socket is short.
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="four"))).resolve()
        store = undo.enter_context(running_server())
        ports = {name: free_port() for name in ("agentd", "ctl", "host")}
        shared = {"BOROUGH_LEDGER": str(folder / "data"), "REDIS_URL": store.url, "TT_API_KEY": KEY}
        shutil.copytree(ROOT / "src" / "borough" / "town", folder / "sources" / "src" / "borough" / "town")
        (folder / "town").mkdir()
        run_tool("borough.cli.tt", "init", "--name", "four", cwd=folder / "town")
        agentd = start_daemon(
            folder,
            {
                **shared,
                "AGENTD_API_ADDR": f"127.0.0.1:{ports['agentd']}",
                "BOROUGH_TOWN": str(folder / "town"),
                "BOROUGH_FLEET": f"http://127.0.0.1:{ports['ctl']}",
            },
        )
        data = ("--data-dir", str(folder / "ctl"))
        ctl = undo.enter_context(program("borough.cli.tt_ctl", ports["ctl"], folder / "ctl", *data, environ=shared))
        server = ("--host-image", "--server", f"127.0.0.1:{ports['agentd']}")
        host = undo.enter_context(host_program(ports["host"], folder / "host", "h1", *server))
        fleet = Api(ctl.address)
        fleet.data("POST", "/api/hosts", {"addr": host.address}, status=201)
        town = start_town(folder / "town", environ=shared)
        undo.callback(stop_town, town)
        made = Four(agentd=agentd, town=town, ctl=ctl, fleet=fleet)
        undo.callback(made.stop)
        yield made
        assert fleet.data("GET", "/api/envs") == []


def test_the_demonstration_s_three_runs_and_the_ledger_s_writer_killed_in_between(four: Four) -> None:
    until(four.writer)
    writer = four.writer()
    assert writer is not None
    assert writer[0] == "agentd"
    survey = four.surveyed("List the largest modules in `src/borough/town`.")
    forbidden = four.surveyed("List the largest modules in `tests`.")
    assert four.comes_to(survey, "succeeded")["result"]["files_changed"] == [{"path": "out/report.md", "kind": "added"}]
    assert "refused" in four.comes_to(forbidden, "failed")["result"]["answer"]

    long = four.begun("take your time", ["sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; echo at last"])
    machine = four.comes_to(long, "working")["machine"]
    four.agentd.kill()
    taken = until(lambda: (found := four.writer()) and found[0] != "agentd" and found)
    assert taken[1] > writer[1]
    task = four.town.ok("POST", "/v1/backlog", {"description": "what is done meanwhile is recorded too"})
    until(four.writer)

    four.agentd = four.agentd.restarted()
    until(lambda: (found := four.writer()) and found[0] == "agentd")
    four.fleet.ask("PUT", f"/api/vms/{machine['vm_id']}/files?path=/workspace/go", "now")
    publish = four.surveyed("Count the functions per module in `src/borough/town` and publish it.")
    asking = four.comes_to(publish, "waiting")
    assert four.comes_to(long, "succeeded")["result"]["answer"] == "at last"
    (asked,) = four.agentd.ok("GET", f"/approvals?agent_id={asking['agent']['id']}")
    four.agentd.ok("POST", f"/approvals/{asked['request_id']}/approve", {})
    done = four.comes_to(publish, "succeeded")
    assert {one["path"] for one in done["result"]["files_changed"]} == {"out/report.md", "published/report.md"}
    until(lambda: four.fleet.data("GET", "/api/envs") == [])
    until(four.writer)
    recorded(four, task, [survey, forbidden, long, publish])


def recorded(four: Four, task: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Check that all of it is in the one ledger, each act once, and that the ledger proves itself."""
    entries = four.agentd.entries()
    ids = [entry["id"] for entry in entries]
    assert len(ids) == len(set(ids))
    events = [entry["data"]["event_id"] for entry in entries if entry["via"] == "town"]
    assert len(events) == len(set(events))
    assert [each["data"]["task_id"] for each in entries if each["action"] == "town.task_queued"].count(
        task["task_id"]
    ) == 1
    assert {"fleet.env.created", "RunAdmit", "RunEnd", "town.task_completed"} <= {each["action"] for each in entries}
    for run in runs:
        ended = [each for each in entries if each["action"] == "RunEnd" and each["data"].get("run") == run["id"]]
        assert len(ended) == 1, run
    said = run_tool(
        "borough.cli.borough", "verify", four.agentd.url, cwd=four.agentd.folder, environ=four.agentd.environ
    )
    assert "verified" in said.stdout, said.stdout


def test_borough_run_finds_the_daemon_by_its_address(four: Four) -> None:
    environ = {
        "TINYTOWN_SERVER": four.agentd.url,
        "TINYTOWN_TOKEN_FILE": str(four.agentd.folder / "data" / "operator.token"),
    }
    words = ("run", "say where you are", "--image", "host", "--json", "--", "sh", "-c", "echo here")
    done = run_tool("borough.cli.borough", *words, cwd=four.agentd.folder, environ=environ)
    assert json.loads(done.stdout)["result"]["answer"] == "here"
    said = run_tool("borough.cli.borough", "runs", "--json", cwd=four.agentd.folder, environ=environ)
    assert json.loads(said.stdout)["runs"][0]["task"] == "say where you are"


ALL_AT_ONCE = (
    ("attention",),
    ("evidence", "export", "abcdef12", "-o", "evidence.json"),
    ("pool", "list"),
    ("run", "a task", "--image", "host", "--dry-run", "--", "true"),
)


@pytest.mark.parametrize("words", ALL_AT_ONCE, ids=lambda words: words[0])
def test_one_part_says_where_what_takes_all_of_them_is_to_be_had(four: Four, words: tuple[str, ...]) -> None:
    said = run_tool("borough.cli.borough", *words, cwd=four.town.root, environ=four.town.environ, check=False)
    assert said.returncode == 5, said.stderr
    assert "and this program is one of them" in said.stderr
    assert "start 'borough up'" in said.stderr


def test_the_daemon_that_serves_runs_says_so_of_the_rest_too(four: Four) -> None:
    answer = four.agentd.request("GET", "/v1/attention")
    assert answer.status == 404
    assert "'ash pending'" in json.loads(answer.body)["resolution"]
    assert four.fleet.ask("GET", "/v1/runs")[1]["resolution"].startswith("start 'borough up'")


def test_the_doctor_says_who_writes_the_ledger(four: Four) -> None:
    until(four.writer)
    said = run_tool(
        "borough.cli.borough", "doctor", "--json", cwd=four.town.root, environ=four.town.environ, check=False
    )
    found = {each["what"]: each for each in json.loads(said.stdout)["findings"]}
    assert found["ledger"]["state"] == "ok"
    assert WRITTEN.match(found["ledger"]["detail"]), found["ledger"]


def test_a_run_outlives_the_controller_and_ends_at_once_when_it_is_killed(four: Four) -> None:
    waits = ["sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; echo at last"]
    first, second = four.begun("wait", waits), four.begun("wait too", waits)
    machine = four.comes_to(first, "working")["machine"]
    four.comes_to(second, "working")
    four.ctl.kill()
    four.ctl.start()
    killed = four.agentd.ok("POST", "/v1/kill", {"target": second["id"], "quarantine": False, "reason": "a test"})
    assert "token_revoked" in killed["done"]
    four.comes_to(second, "killed")
    four.fleet.ask("PUT", f"/api/vms/{machine['vm_id']}/files?path=/workspace/go", "now")
    assert four.comes_to(first, "succeeded")["result"]["answer"] == "at last"
    until(lambda: four.fleet.data("GET", "/api/envs") == [])


def test_a_run_waits_for_room_in_the_fleet(four: Four) -> None:
    first = four.begun("wait", ["sh", "-c", "while [ ! -e go ]; do sleep 0.1; done"], cpu=8)
    machine = four.comes_to(first, "working")["machine"]
    second = four.begun("take turns", ["echo", "my turn"], cpu=8)
    assert second["admission"]["host_id"] is None
    assert "waits" in second["admission"]["reasons"][0]["reason"]
    four.comes_to(second, "preparing")
    four.fleet.ask("PUT", f"/api/vms/{machine['vm_id']}/files?path=/workspace/go", "now")
    four.comes_to(first, "succeeded")
    done = four.comes_to(second, "succeeded")
    assert (done["attempt"], done["result"]["answer"]) == (1, "my turn")
    until(lambda: four.fleet.data("GET", "/api/envs") == [])
