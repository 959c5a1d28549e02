"""The fleet in ``tt status``."""

import os
from pathlib import Path
from typing import Any

from borough.cli.commands import invocation
from borough.cli.fleet_session import controller
from borough.cli.output import Output, warn
from borough.cli.session import pages
from borough.client.controller_address import read_saved
from borough.client.discovery import find_fleet, find_town, named_address
from borough.client.http import Client
from borough.core.errors import BoroughError, NotFound, Unavailable


def fleet_alone() -> bool:
    """Tell whether only the fleet is meant: a controller is named, or one is saved and there is no town.

    A controller is named without a scheme, as the fleet's commands take it; a town's server with one.
    """
    told = invocation()
    if told.server:
        return not told.server.startswith(("http://", "https://"))
    here = find_town(Path(told.town)) is not None or named_address(None, os.environ) is not None
    return not here and read_saved(os.environ) is not None


def fleet_beside() -> dict[str, Any] | None:
    """Return the fleet's sums, where a controller is known and answers; nobody is kept waiting for long."""
    if invocation().server:
        return None
    if find_fleet(Path(invocation().town)) is None and read_saved(os.environ) is None:
        return None
    try:
        with controller(timeout_s=5.0) as fleet:
            found: dict[str, Any] = fleet.get("/api/status")
            return found
    except BoroughError as problem:
        warn(f"the fleet: {problem.message}")
        return None


def pools_beside(server: Client) -> list[dict[str, Any]]:
    """Return the pools of a server that has some; one without a fleet has none, and one that starts says none yet."""
    try:
        return list(pages(server, "/v1/pools", "pools", {}, limit=None))
    except (NotFound, Unavailable):
        return []


def print_pools(out: Output, found: list[dict[str, Any]]) -> None:
    """Print how each pool stands, and what troubles it."""
    rows = [
        (
            each["role"],
            f"{each['workers']}/{each['desired']}",
            f"{each['min']} to {each['max']}",
            (each["trouble"] or each["last_step"] or {}).get("reason", ""),
        )
        for each in found
    ]
    out.table(("pool", "workers", "bounds", "last"), rows, empty="no pools")


def print_fleet(out: Output, found: dict[str, Any]) -> None:
    """Print the fleet's sums."""
    out.line("Fleet status")
    out.fields(
        [
            ("Hosts", f"{found['hosts_online']}/{found['hosts']} online"),
            ("VMs", found["total_vms"]),
            ("Envs", found["total_envs"]),
            ("CPU", f"{found['cpu_used']}/{found['cpu_total']} cores"),
            ("Memory", f"{found['mem_used']}/{found['mem_total']} MB"),
            ("Disk", f"{found['disk_used']}/{found['disk_total']} MB"),
        ]
    )
