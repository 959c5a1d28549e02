"""``tt history`` and ``tt events``: what happened, and what happens."""

import json
from typing import Any

import click

from borough.cli.commands import command, invocation
from borough.cli.output import Output, output, warn
from borough.cli.session import connect
from borough.client.http import Client


@command("history", example="tt history -n 50\ntt history -a ada")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="The newest so many.")
@click.option("-a", "--agent", metavar="AGENT", help="Only what concerns this agent.")
def history(*, limit: int, agent: str | None) -> None:
    """Show what happened last, in the order in which it happened."""
    with connect() as server:
        found = server.get("/v1/events", {"limit": limit, "agent": agent})
    output().show(found, lambda: _print_events(output(), found["events"]))


@command("events", example="tt events --follow\ntt events -f --agent ada --json")
@click.option("-c", "--count", type=click.IntRange(0, 1000), default=20, show_default=True, help="The newest so many.")
@click.option("--agent", metavar="AGENT", help="Only what concerns this agent.")
@click.option("--task", metavar="TASK", help="Only what concerns this task.")
@click.option("--type", "kind", metavar="TYPE", help="Only events of this type.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
def events(*, count: int, agent: str | None, task: str | None, kind: str | None, follow: bool) -> None:
    """Show events, and follow them as they happen.

    With --json --follow each is one JSON document on a line of its own.
    """
    query = {"agent": agent, "task": task, "type": kind}
    with connect() as server:
        found = server.get("/v1/events", {"limit": max(count, 1), **query})
        shown = found["events"] if count else []
        if not follow:
            output().show({"events": shown, "count": len(shown)}, lambda: _print_events(output(), shown))
            return
        for event in shown:
            _print_one(output(), event)
        last = found["events"][-1]["id"] if found["events"] else ""
        _follow(server, query, found.get("cursor", last))  # of all contexts there is a place in all their streams


def _follow(server: Client, query: dict[str, str | None], last_id: str) -> None:
    out = output()
    for event in server.follow("/v1/events", query, last_event_id=last_id):
        if event.type == "gap":
            warn(f"some events are missing here: {event.data}")
            continue
        told = _document(event.data)
        if told is not None:
            _print_one(out, told)


def _document(data: str) -> dict[str, Any] | None:
    try:
        told = json.loads(data)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "event_type" in told else None


def _print_one(out: Output, event: dict[str, Any]) -> None:
    if invocation().json:
        out.record(event)
        return
    out.line(_line(out, event))
    out.stream.flush()


def _print_events(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("when", "type", "what"),
        [(out.when(event["timestamp"]), event["event_type"], event["message"]) for event in found],
        empty="nothing has happened yet",
    )


def _line(out: Output, event: dict[str, Any]) -> str:
    if not out.terminal:
        return f"{event['timestamp']} {event['event_type']} {event['message']}"
    return f"{event['timestamp'][11:19]}  {event['event_type']:<22}  {event['message']}"
