"""``borough events``: what happened anywhere, and what happens."""

import json
from typing import Any

import click

from borough.cli.commands import command, invocation
from borough.cli.output import Output, output, warn
from borough.cli.session import connect


@command("events", example="borough events -f\nborough events --context fleet --subject web")
@click.option("-c", "--count", type=click.IntRange(0, 1000), default=20, show_default=True, help="The newest so many.")
@click.option(
    "--context", type=click.Choice(["town", "fleet", "governance", "runs"]), help="Only what happens in this one."
)
@click.option("--kind", metavar="KIND", help="Only of this kind, or of all that begin with it and a dot.")
@click.option("--subject", metavar="ID", help="Only what concerns this task, agent, machine, environment, host or run.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
def events(*, count: int, context: str | None, kind: str | None, subject: str | None, follow: bool) -> None:
    """Show what happened in all contexts, and follow it as it happens.

    With --json --follow each is one JSON document on a line of its own.
    """
    query = {"context": context, "kind": kind, "subject": subject}
    out = output()
    with connect(start=False) as server:
        found = server.get("/v1/events", {"limit": max(count, 1), **query})
        shown = found["events"] if count else []
        if not follow:
            out.show({**found, "events": shown, "count": len(shown)}, lambda: _print_all(out, shown))
            return
        for event in shown:
            _print_one(out, event)
        for told in server.follow("/v1/events", query, last_event_id=found["cursor"]):
            if told.type == "gap":
                warn(f"some events are missing here: {told.data}")
            else:
                _print_one(out, json.loads(told.data))


def _print_all(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("when", "context", "kind", "what"),
        [(out.when(event["at"]), event["context"], event["kind"], event["message"]) for event in found],
        empty="nothing has happened yet",
    )


def _print_one(out: Output, event: dict[str, Any]) -> None:
    if invocation().json:
        out.record(event)
        return
    when = event["at"][11:19] if out.terminal else event["at"]
    out.line(f"{when}  {event['context']:<10}  {event['kind']:<22}  {event['message']}")
    out.stream.flush()
