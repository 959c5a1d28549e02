"""``tt start``, ``stop``, ``status``: the town's server and what it serves."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import click

from borough.cli.commands import command, invocation
from borough.cli.errors import Failed
from borough.cli.fleet_session import controller
from borough.cli.fleet_status import fleet_alone, fleet_beside, pools_beside, print_fleet, print_pools
from borough.cli.output import Output, output, say
from borough.cli.session import connect, pages, start_server, town_folder
from borough.client.discovery import is_running, named_address, read_record
from borough.client.http import Client
from borough.client.urls import segment

ENDED: Final = frozenset({"stopped", "error", "cold"})
_STOP_WITHIN_S: Final = 40.0
_TASKS_SHOWN: Final = 5
_TASKS_READ: Final = 1000


@command("start", example="tt start")
def start() -> None:
    """Start the town's server in the background.

    One that runs already is left alone. Other commands start it by themselves when they need it.
    """
    address = start_server(town_folder())
    output().show({"address": address}, lambda: output().line(address))


@command("stop", example="tt stop --server")
@click.option("--server", "also_server", is_flag=True, help="Stop the server too, once the agents have been told.")
def stop(*, also_server: bool) -> None:
    """Stop every agent, and with --server the server too."""
    town = town_folder()
    record = read_record(town)
    if record is None and named_address(invocation().server, os.environ) is None:
        say(f"no server runs for the town in {town}, so nothing was stopped")
        output().show({"stopped": [], "server": False}, lambda: None)
        return
    with connect(start=False) as server:
        names = [agent["name"] for agent in server.get("/v1/status")["agents"] if agent["state"].lower() not in ENDED]
        for name in names:
            server.post(f"/v1/agents/{segment(name)}/kill")
    if also_server and record is not None:
        end_server(town)
    ended = also_server and record is not None
    output().show({"stopped": names, "server": ended}, lambda: _stopped(names, server_too=ended))


def end_server(town: Path, *, within_s: float = _STOP_WITHIN_S) -> None:
    """Ask the server of ``town`` to end and wait until it has.

    Raises:
        Failed: it still runs after ``within_s``.
    """
    record = read_record(town)
    if record is None:
        return
    os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + within_s
    while is_running(record):
        if time.monotonic() > deadline:
            raise Failed(
                f"the server (pid {record.pid}) still runs",
                reason=f"it was asked to end {within_s:g} s ago and may still wait for requests under way",
                resolution=f"read {town / '.tt' / 'logs' / 'townhall.log'}; to end it by force: kill -9 {record.pid}",
            )
        time.sleep(0.05)


def _stopped(names: list[str], *, server_too: bool) -> None:
    for name in names:
        output().line(f"stopped {name}")
    if not names:
        say("no agent was running")
    if server_too:
        say("the server has ended")


@command("status", example="tt status --deep\ntt status --tasks --json")
@click.option("--deep", is_flag=True, help="Show what each agent does and did last.")
@click.option("--tasks", is_flag=True, help="Show the tasks that are under way, too.")
def status(*, deep: bool, tasks: bool) -> None:
    """Show the town, its agents and its work; and the fleet with its pools, where a controller is known."""
    if fleet_alone():
        with controller() as fleet:
            found = fleet.get("/api/status")
        output().show(found, lambda: print_fleet(output(), found))
        return
    with connect() as server:
        document = server.get("/v1/status", {"deep": deep or tasks})
        if deep:
            document["agents"] = [_with_history(server, agent) for agent in document["agents"]]
        if tasks:
            document["tasks_by_agent"] = _by_agent(server, document["agents"])
        url = server.url
        pools = pools_beside(server)
    told = fleet_beside()
    if told is not None:
        document["fleet"] = told
    if pools:
        document["pools"] = pools
    output().show(document, lambda: _print_status(output(), document, url))


def _by_agent(server: Client, agents: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what each agent has in hand and before it, by its name."""
    open_tasks = [
        task
        for state in ("running", "assigned")
        for task in pages(server, "/v1/tasks", "tasks", {"state": state}, limit=_TASKS_READ)
    ]
    return {
        agent["name"]: [task for task in open_tasks if task["agent_id"] == agent["id"]][:_TASKS_SHOWN]
        for agent in agents
    }


def _with_history(server: Client, agent: dict[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = server.get(f"/v1/agents/{segment(agent['id'])}")
    return detail


def _print_status(out: Output, document: dict[str, Any], url: str) -> None:
    counted = document.get("tasks")
    counts = ", ".join(f"{count} {state}" for state, count in (counted or {}).items() if count)
    out.fields(
        [
            ("town", document["name"]),
            ("root", document["root"]),
            ("store", document["redis_url"]),
            ("server", url),
            ("tasks", None if counted is None else counts or "none"),
            ("boxes", _boxed(document["agents"])),
        ]
    )
    print_agents(out, document["agents"])
    for reason, names in _without_boxes(document["agents"]).items():
        out.line(f"not in a box: {', '.join(names)}: {reason}")
    for agent in document["agents"]:
        for entry in agent.get("history", [])[-_TASKS_SHOWN:]:
            change = f"{entry['old_state'] or '-'} → {entry['new_state']}" if entry["new_state"] else ""
            out.line(f"{agent['name']}: {out.when(entry['at'])} {entry['event']} {change} {entry['reason'] or ''}")
    for name, found in document.get("tasks_by_agent", {}).items():
        for task in found:
            out.line(f"{name}: {task['task_id'][:8]} {task['state']} {task['description']}")
    if "fleet" in document:
        print_fleet(out, document["fleet"])
    if "pools" in document:
        print_pools(out, document["pools"])


def _boxed(agents: list[dict[str, Any]]) -> str | None:
    """Return how many of the workers on the server's machine are in boxes; ``None``: it runs none, or does not say."""
    here = [agent["boxed"] for agent in agents if agent.get("boxed") is not None]
    return f"{sum(here)} of {len(here)} workers on the server's machine" if here else None


def _without_boxes(agents: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return who of them is in none, by the reason."""
    found: dict[str, list[str]] = {}
    for agent in agents:
        if agent.get("boxed") is False:
            found.setdefault(agent["not_boxed_because"], []).append(agent["name"])
    return found


def print_agents(out: Output, agents: list[dict[str, Any]]) -> None:
    """Print agents as a table."""
    out.table(
        ("agent", "id", "state", "since", "inbox", "urgent", "done", "working on"),
        [
            (
                agent["label"],
                agent["id"][:4] if out.terminal else agent["id"],
                agent["state"].lower(),
                out.when(agent["state_since"]),
                agent["inbox_len"],
                agent["urgent_len"],
                agent["tasks_completed"],
                agent["current_scope"] or agent["reason"] or "",
            )
            for agent in agents
        ],
        empty="there are no agents; start one with 'tt spawn NAME'",
    )
    ended = sum(agent["state"].lower() in {"stopped", "error"} for agent in agents)
    if ended and out.terminal:
        say(f"{ended} of them have ended; 'tt prune' removes these, 'tt restart NAME' starts one again")
