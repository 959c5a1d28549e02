"""``borough demo``: three governed agents, each in a machine of its own; one machine killed; evidence at the end."""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from borough.cli.commands import command
from borough.cli.demo_borough import LIVE, DemoBorough, ShownEngines
from borough.cli.demo_town import fresh_folder, sources
from borough.cli.errors import FAILED, OK, Failed
from borough.cli.output import Output, output, say
from borough.client.http import Client

_PACE_S: Final = "4"
"""How long the agent whose machine is killed takes at least, so that there is something to kill."""
_LOOK_EVERY_S: Final = 0.1
_OFFERED_S: Final = 60.0
"""Within which a host finds out what it can boot."""
_SIZES: Final = {"docker": {"memory_mib": 64, "disk_mib": 64}, "qemu": {"memory_mib": 192, "disk_mib": 200}}
_SAY: Final = "Say which kernel this is."
_SURVEY: Final = "List the largest modules in `src/borough/town`."
_FORBIDDEN: Final = "List the largest modules in `tests`."
_PUBLISH: Final = "Count the functions per module in `src/borough/town` and publish it."


@dataclass(slots=True)
class Story:
    """What was seen, in the order in which it was."""

    began: float = field(default_factory=time.monotonic)
    steps: list[dict[str, object]] = field(default_factory=list)

    def seen(self, what: str) -> None:
        """Tell and keep one more thing that was seen."""
        at_s = round(time.monotonic() - self.began, 1)
        self.steps.append({"at_s": at_s, "seen": what})
        say(f"{at_s:6.1f} s  {what}")


@dataclass(slots=True, kw_only=True)
class Play:
    """Three runs, watched to their ends."""

    borough: DemoBorough
    server: Client
    story: Story
    names: dict[str, str] = field(default_factory=dict)
    """What each run is called here, by id."""
    states: dict[str, str] = field(default_factory=dict)
    killed: str | None = None
    approved: str | None = None
    others: dict[str, str] = field(default_factory=dict)
    """Engine → image, of those that are still to be shown: a host finds out by itself what it has."""
    others_by: float = 0.0

    def begin(self) -> None:
        """Ask for one admission, then start the runs."""
        orders = {
            "survey": self.borough.order(_SURVEY, command=[*self.borough.order("")["command"], "--pace", _PACE_S]),
            "forbidden": self.borough.order(_FORBIDDEN),
            "publish": self.borough.order(_PUBLISH),
        }
        told = self.server.request("POST", "/v1/runs", body=orders["survey"], query={"dry_run": "1"}).json()
        may = ", ".join(one for one in told["capabilities"] if one.startswith("fs."))
        self.story.seen(
            f"asked first: {told['engine']} on {told['host_id']}, {told['start']} start, nothing of the network; {may}"
        )
        for name, order in orders.items():
            run = self.server.post("/v1/runs", order)
            self.names[run["id"]] = name
            self.story.seen(f"{name}: {order['task']}")

    def watch(self, *, deadline: float) -> list[dict[str, Any]]:
        """Tell what becomes of the runs, kill a machine and agree to a request on the way; return them, ended."""
        while True:
            self._begin_others()
            runs = self.server.get("/v1/runs", {"limit": 50})["runs"]
            for run in runs:
                self._tell(run)
                self._act(run)
            if not self.others and all(run["state"] not in LIVE for run in runs):
                return list(runs)
            if time.monotonic() > deadline:
                stands = ", ".join(f"{self.names[run['id']]} is {run['state']}" for run in runs)
                raise Failed("the demonstration takes too long", reason=stands, resolution="borough doctor")
            time.sleep(_LOOK_EVERY_S)

    def _begin_others(self) -> None:
        """Start a run in each other engine as soon as the host offers it."""
        if not self.others:
            return
        offered = {engine for host in self.server.get("/api/hosts")["data"] for engine in host["engines"]}
        for engine in self.others.keys() & offered:
            size = _SIZES[engine]
            order = {"task": _SAY, "command": ["uname", "-nsr"], "engine": engine, "image": self.others.pop(engine)}
            run = self.server.post("/v1/runs", {**order, **size})
            self.names[run["id"]] = engine
            self.story.seen(f"{engine}: {_SAY}")
        if self.others and time.monotonic() > self.others_by:
            self.story.seen(f"not shown, since the host does not offer it in time: {', '.join(self.others)}")
            self.others.clear()

    def _tell(self, run: Mapping[str, Any]) -> None:
        if self.states.get(run["id"]) == run["state"]:
            return
        self.states[run["id"]] = run["state"]
        machine = f" in machine {run['machine']['vm_id']}" if run["machine"] and run["state"] == "working" else ""
        attempt = f", attempt {run['attempt']}" if run["attempt"] > 1 else ""
        answer = f": {run['result']['answer']}" if run["result"] else ""
        self.story.seen(f"{self.names[run['id']]} is {run['state']}{machine}{attempt}{answer}")

    def _act(self, run: Mapping[str, Any]) -> None:
        name = self.names[run["id"]]
        if name == "survey" and self.killed is None and run["state"] == "working" and self._has_begun(run):
            self.killed = run["machine"]["vm_id"]
            count = self.borough.kill_machine(run["machine"]["vm_id"])
            self.story.seen(f"killed machine {self.killed} of survey in the middle: {count} processes, SIGKILL")
        if name == "publish" and self.approved is None and run["state"] == "waiting":
            self._approve(run)

    def _has_begun(self, run: Mapping[str, Any]) -> bool:
        return b"read " in self.server.request("GET", f"/v1/runs/{run['id']}/log").body

    def _approve(self, run: Mapping[str, Any]) -> None:
        waiting = [one for one in self.server.get("/approvals") if one["agent_id"] == run["agent"]["id"]]
        for one in waiting:
            self.story.seen(f"publish asks: {one['tool_name']} {one['input']['path']} (rule {one['rule']})")
            self.server.post(f"/approvals/{one['request_id']}/approve", {})
            self.approved = one["request_id"]
            self.story.seen("agreed to it")


@command("demo", example="borough demo\nborough demo --source ~/code/project --folder /tmp/demo")
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder.  [default: ./.borough/demo-N]")
@click.option("--source", type=click.Path(path_type=Path, exists=True, file_okay=False), help="What is worked on.")
@click.option("--within", type=click.FloatRange(5), default=120.0, show_default=True, help="Give up after so many s.")
@click.pass_context
def demo(context: click.Context, *, folder: Path | None, source: Path | None, within: float) -> None:
    """Let three governed agents work in machines of their own, kill one, and verify the evidence.

    A borough in a folder of its own; three runs on a source tree (by default Borough's own), each in a machine that is
    made for it and gone afterwards. One does what it is asked and finishes although its machine is killed; one is
    refused what its manifest does not name, and says so; one asks a person before it publishes. What happened is
    exported and verified offline, from the file alone. Where this machine can make containers and virtual machines,
    a run in each says which kernel it has.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    story = Story()
    engines = ShownEngines()
    borough = DemoBorough(fresh_folder(folder), source=(source or sources()).absolute(), engines=engines)
    with engines, borough, Client(borough.address) as server:
        story.seen(f"borough up after {borough.ready_s:.1f} s: {borough.address.url}")
        others = dict(engines.images)
        play = Play(borough=borough, server=server, story=story, others=others, others_by=story.began + _OFFERED_S)
        for engine, why in engines.missing.items():
            story.seen(f"{engine} is not shown: {why}")
        play.begin()
        runs = play.watch(deadline=story.began + within)
        named = {play.names[run["id"]]: run for run in runs}
        evidence = _evidence(borough, server, named["survey"], story)
    left = [*borough.left(), *engines.left()]
    story.seen("nothing is left running" if not left else f"left behind: {', '.join(left)}")
    good = not left and play.killed is not None and play.approved is not None and all(_wanted(named))
    document = {
        "good": good, "folder": str(borough.folder), "evidence": str(evidence), "steps": story.steps, "left": left,
        "runs": runs, "took_s": round(time.monotonic() - story.began, 1),
    }  # fmt: skip
    output().show(document, lambda: _table(output(), document, play.names))
    context.exit(OK if good else FAILED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _evidence(borough: DemoBorough, server: Client, run: Mapping[str, Any], story: Story) -> Path:
    path = borough.folder / f"evidence-{run['id'][:8]}.tar.gz"
    path.write_bytes(server.request("GET", f"/v1/evidence/{run['id']}").body)
    said = borough.verify(path)
    first = next((line.strip() for line in said.splitlines() if line.strip()), "verified")
    story.seen(
        f"evidence of survey, {path.stat().st_size} bytes, verified from the file alone: {' '.join(first.split())}"
    )
    return path


def _wanted(runs: Mapping[str, Mapping[str, Any]]) -> list[bool]:
    """Return whether each run ended as it should."""
    checks: list[Callable[[], bool]] = [
        lambda: runs["survey"]["state"] == "succeeded" and runs["survey"]["attempt"] > 1,
        lambda: runs["forbidden"]["state"] == "failed" and "refused" in runs["forbidden"]["result"]["answer"],
        lambda: runs["publish"]["state"] == "succeeded" and bool(runs["publish"]["result"]["patch_bytes"]),
    ]
    shown = [run for name, run in runs.items() if name in _SIZES]
    return [check() for check in checks] + [run["state"] == "succeeded" for run in shown]


def _table(out: Output, document: Mapping[str, Any], names: Mapping[str, str]) -> None:
    rows = [
        [
            names[run["id"]], run["state"], run["attempt"], run["spent"]["tool_calls"],
            run["result"]["answer"] if run["result"] else run["reason"] or "",
        ]
        for run in reversed(document["runs"])
    ]  # fmt: skip
    out.table(["RUN", "STATE", "ATTEMPTS", "CALLS", "ANSWER"], rows, empty="no runs")
    good = "all as it should be" if document["good"] else "NOT all as it should be"
    out.line(f"{good}, in {document['took_s']} s; records and evidence in {document['folder']}")
