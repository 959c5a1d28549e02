"""``borough attention``: what needs a person, and what settles it."""

from typing import Any

import click

from borough.cli.commands import command
from borough.cli.output import Output, output
from borough.cli.session import connect

KINDS = ("approval", "question", "budget", "host", "stuck_lease", "orphan_task", "vm", "pool", "run", "dead_letter")


@command("attention", example="borough attention\nborough attention --kind approval")
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
def attention(*, kind: str | None, limit: int) -> None:
    """Show what needs a person, what happens if nobody acts, and what settles it."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    with connect(start=False) as server:
        while len(items) < limit:
            query = {"kind": kind, "limit": limit - len(items), "cursor": cursor}
            found = server.get("/v1/attention", query)
            items += found["items"]
            cursor = found["next_cursor"]
            if cursor is None:
                break
    document = {"items": items, "next_cursor": cursor}
    output().show(document, lambda: _print(output(), items, more=cursor is not None))


def _print(out: Output, items: list[dict[str, Any]], *, more: bool) -> None:
    if not items:
        out.line("nothing needs you")
        return
    for item in items:
        out.line(f"[{item['urgency']}] {item['title']}, since {out.when(item['since'])}")
        out.line(f"    why: {item['why']}")
        out.line(f"    if nobody acts: {item['safe_default']}")
        for action in item["actions"]:
            out.line(f"    {action['label']}: {action['command']}")
    if more:
        out.line("there is more: ask for more with --limit")
