"""``borough pool``: machines that come and go with the work of a role."""

from pathlib import Path
from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.output import Output, output
from borough.cli.session import connect, pages
from borough.client.http import Client
from borough.client.urls import segment
from borough.core.errors import NotFound

_HERE: Final = "borough.cli.pools"
_SETTINGS: Final = (
    "image", "engine", "manifest", "command", "min", "max", "warm", "quiet_s", "cpu", "memory_mib", "disk_mib"
)  # fmt: skip

pool = LazyGroup(
    "pool",
    help="Let machines come and go with the work of a role.",
    example="borough pool set coder --max 4 -- claude\nborough pool show coder",
    table={
        "set": (f"{_HERE}:put", "Make a pool for ROLE, or change it."),
        "list": (f"{_HERE}:list_pools", "List the pools."),
        "show": (f"{_HERE}:show", "Show a pool, its machines, and why so many are there."),
        "delete": (f"{_HERE}:delete", "Let a pool's workers finish and its machines go."),
    },
)


@command(
    "set",
    example="borough pool set coder --max 4 -- claude\nborough pool set tester --min 1 --warm 2",
)
@click.argument("role")
@click.argument("words", metavar="[-- COMMAND...]", nargs=-1)
@click.option("--image", metavar="IMAGE", help="What its machines are made from.  [default: host]")
@click.option("--engine", metavar="ENGINE", help="What makes them.  [default: bubblewrap]")
@click.option("--manifest", type=click.Path(path_type=Path), metavar="FILE", help="What bounds them.  [default: none]")
@click.option("--min", "least", type=click.IntRange(min=0), help="At least so many workers.  [default: 0]")
@click.option("--max", "most", type=click.IntRange(min=0), help="At most so many.  [default: 4]")
@click.option("--warm", type=click.IntRange(min=0), help="Ready machines beyond the workers.  [default: 0]")
@click.option(
    "--quiet",
    "quiet_s",
    type=click.IntRange(min=0),
    metavar="SEC",
    help="Idle for so long, a worker goes.  [default: 60]",
)
@click.option("--cpu", type=click.IntRange(min=1), help="Processors of a machine.  [default: 1]")
@click.option("--memory", "memory_mib", type=click.IntRange(min=1), metavar="MIB", help="Its memory.  [default: 512]")
@click.option("--disk", "disk_mib", type=click.IntRange(min=1), metavar="MIB", help="Its disk.  [default: 2048]")
def put(
    *, role: str, words: tuple[str, ...], manifest: Path | None, least: int | None, most: int | None, **told: Any
) -> None:
    """Make a pool for ROLE, or change it: what is not said stays as it is.

    COMMAND is the agent CLI inside: a name from [agent_clis] or a command.  [default: the town's]
    """
    given = {
        **told,
        "min": least,
        "max": most,
        "command": list(words) or None,
        "manifest": None if manifest is None else manifest.read_text(encoding="utf-8"),
    }
    with connect() as server:
        body = {**_present(server, role), **{name: value for name, value in given.items() if value is not None}}
        made = server.request("PUT", f"/v1/pools/{segment(role)}", body=body).json()
    output().show(made, lambda: output().line(f"set pool {role}: {_bounds(made)}"))


@command("list", example="borough pool list")
def list_pools() -> None:
    """List the pools."""
    with connect() as server:
        pools = [*pages(server, "/v1/pools", "pools", {}, limit=None)]
    headings = ("role", "workers", "desired", "bounds", "last step")
    rows = [
        (each["role"], each["workers"], each["desired"], _bounds(each), (each["last_step"] or {}).get("reason"))
        for each in pools
    ]
    document = {"pools": pools, "count": len(pools)}
    output().show(document, lambda: output().table(headings, rows, empty="no pools; make one with 'borough pool set'"))


@command("show", example="borough pool show coder --json")
@click.argument("role")
def show(*, role: str) -> None:
    """Show a pool, its machines, and why so many are there."""
    with connect() as server:
        found = server.get(f"/v1/pools/{segment(role)}")
    output().show(found, lambda: _shown(output(), found))


@command("delete", example="borough pool delete coder")
@click.argument("role")
def delete(*, role: str) -> None:
    """Let a pool's workers finish and its machines go; then the pool is gone."""
    with connect() as server:
        found = server.delete(f"/v1/pools/{segment(role)}")
    count = len(found["machines"])
    output().show(found, lambda: output().line(f"pool {role} drains: {count} machines go when their workers are done"))


def _present(server: Client, role: str) -> dict[str, Any]:
    try:
        found = server.get(f"/v1/pools/{segment(role)}")
    except NotFound:
        return {}
    return {name: found[name] for name in _SETTINGS}


def _bounds(found: dict[str, Any]) -> str:
    warm = f", {found['warm']} ready" if found["warm"] else ""
    return f"{found['min']} to {found['max']} workers{warm}"


def _shown(out: Output, found: dict[str, Any]) -> None:
    trouble = found["trouble"]
    desired = "not known yet" if found["desired"] is None else found["desired"]
    out.fields(
        [
            ("Role", found["role"]),
            ("State", found["state"]),
            ("Workers", f"{found['workers']} of {desired} ({_bounds(found)})"),
            ("Machines", f"{found['image']} on {found['engine']}, {found['cpu']} CPU, {found['memory_mib']} MiB"),
            ("Command", " ".join(found["command"]) or None),
            ("Held", found["held"]),
            ("Next try", None if trouble is None else f"{out.when(trouble['next_try_at'])}: {trouble['reason']}"),
        ]
    )
    machines = [
        (each["vm_id"], each["use"], each["state"], each["agent"], each["reason"]) for each in found["machines"]
    ]
    out.table(("machine", "use", "state", "agent", "why"), machines, empty="no machines")
    steps = [(out.when(each["at"]), f"{each['from']} to {each['to']}", each["reason"]) for each in found["steps"][:10]]
    out.table(("when", "workers", "why"), steps, empty="nothing was done yet")
