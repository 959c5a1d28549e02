"""What must be so whenever nothing is under way: the controller, the hosts and the machines say the same."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from borough.fleet.vms import VmState
from tests.conftest import eventually
from tests.services.fleet_house import RunningController, RunningHost
from tests.services.plain_engine import MARKER

UNDER_WAY = frozenset({VmState.CREATING, VmState.DELETING, VmState.UNKNOWN})
WITHIN_S = 60.0
PROMISED = ("cpu_used", "mem_used", "disk_used", "vm_count")


async def turn(fleet: RunningController) -> None:
    """Let each of the controller's loops act once."""
    for controller in fleet.opened.controllers:
        await controller.act()


async def settled(fleet: RunningController, *, within_s: float = WITHIN_S) -> None:
    """Turn the loops until they and the operations have brought everything to an end, and once more."""

    async def still() -> bool:
        await turn(fleet)
        return not await under_way(fleet)

    await eventually(still, within_s=within_s)
    await turn(fleet)
    assert await under_way(fleet) == []


async def under_way(fleet: RunningController) -> Sequence[str]:
    """Return what has not come to its end."""
    envs = (await fleet.ask("GET", "/api/envs"))[1]["data"]
    return [
        *(vm["id"] for vm in await machines(fleet) if VmState(vm["state"]) in UNDER_WAY),
        *(env["id"] for env in envs if env["state"] in ("deleting", "creating")),
        *(operation.id for operation in await fleet.opened.services.operations.unfinished()),
    ]


async def machines(fleet: RunningController) -> Sequence[dict[str, Any]]:
    """Return the machines that the controller knows."""
    found: Sequence[dict[str, Any]] = (await fleet.ask("GET", "/api/vms?limit=1000"))[1]["data"]
    return found


async def check(fleet: RunningController, *hosts: RunningHost) -> None:
    """Compare everything with everything: rows, disks, processes, leases, promises."""
    known = await machines(fleet)
    for host in hosts:
        await host.opened.daemon.reconcile()
        mine = [vm for vm in known if vm["host_id"] == host.opened.host_id]
        there = [vm for vm in mine if not is_lost(vm)]
        await check_host(host, {vm["id"] for vm in there})
        shown = (await fleet.ask("GET", f"/api/hosts/{host.opened.host_id}"))[1]["data"]["resource"]
        resource = (await host.opened.daemon.report()).resource
        assert {name: shown[name] for name in PROMISED} == sums(mine), "what the controller has promised"
        assert {name: getattr(resource, name) for name in PROMISED} == sums(there), "what the host has promised"
    envs = (await fleet.ask("GET", "/api/envs"))[1]["data"]
    for env in envs:
        assert env["vm_ids"], f"{env['id']} has no machines: {env}"
    assert {vm["env_id"] for vm in known} <= {env["id"] for env in envs}


def is_lost(vm: dict[str, Any]) -> bool:
    """Tell whether a machine is kept only for its owner to see that it is not there."""
    return vm["state"] == VmState.FAILED and "has nothing of it" in (vm["error"] or "")


def sums(vms: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return what is promised to machines together."""
    running = [vm for vm in vms if vm["state"] != VmState.STOPPED]
    cpu, mem = sum(vm["cpu"] for vm in running), sum(vm["mem"] for vm in running)
    return dict(zip(PROMISED, (cpu, mem, sum(vm["disk"] for vm in vms), len(vms)), strict=True))


async def check_host(host: RunningHost, known: set[str]) -> None:
    """Check that on a host there are exactly these machines, each whole, and nothing else."""
    rows = await host.opened.daemon.machines()
    assert {vm.id for vm in rows} == known
    assert set(await host.engine.machines()) == known
    runtime = host.engine._folder.parent / "runtime"
    assert {each.name for each in runtime.iterdir()} == {f"clone-{vm_id}" for vm_id in known}
    processes = running(host.engine._marker)
    assert sorted(processes) == sorted(vm.id for vm in rows if vm.state in (VmState.RUNNING, VmState.PAUSED))
    lent = [port for vm in rows for port in vm.port_map.values()]
    assert len(set(lent)) == len(lent)
    assert len({vm.ip for vm in rows}) == len(rows)


def running(marker: str) -> list[str]:
    """Return the machine of every process that carries a host's mark."""
    found = []
    wanted = f"{MARKER}={marker}/".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                entries = (process / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            found += [entry[len(wanted) :].decode() for entry in entries if entry.startswith(wanted)]
    return found
