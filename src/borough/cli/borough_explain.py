"""``borough explain``: why anything stands where it stands."""

from typing import Any

import click

from borough.cli.commands import command
from borough.cli.output import Output, output
from borough.cli.session import connect
from borough.client.urls import segment


@command("explain", example="borough explain web\nborough explain 6f6d\nborough explain '#12'")
@click.argument("thing")
def explain(*, thing: str) -> None:
    """Say why a thing stands where it stands, since when, and what comes next.

    THING is a task, agent, run, machine, environment, host, request for agreement or entry of the ledger: its id, its
    name, or the first characters of its id.
    """
    with connect(start=False) as server:
        told = server.get(f"/v1/explain/{segment(thing)}")
    output().show(told, lambda: _print(output(), told))


def _print(out: Output, told: dict[str, Any]) -> None:
    named = f" ({told['name']})" if told["name"] not in (None, told["id"]) else ""
    out.line(f"{told['kind']} {told['id']}{named}")
    out.fields([("state", told["state"]), ("why", told["why"]), ("since", out.when(told["since"]))])
    for heading, lines in (
        ("next", told["next"]),
        (
            "related",
            [f"{each['kind']} {each.get('name') or each['id']}: {each['relation']}" for each in told["related"]],
        ),
        ("history", [_happened(out, each) for each in told["history"]]),
    ):
        if lines:
            out.line(f"{heading}:")
            for line in lines:
                out.line(f"  {line}")


def _happened(out: Output, line: dict[str, Any]) -> str:
    by = f" (by {line['by']})" if line["by"] else ""
    return f"{out.when(line['at'])}  {line['what']}{by}"
