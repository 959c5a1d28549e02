"""From pools to their JSON."""

from typing import Any

from borough.core.clock import rfc3339, utc_now
from borough.http.pools import wire
from borough.pools.pools import Machine, PoolSettings, Step, Trouble, Use
from borough.pools.services.pools import PoolDetail

_SERVING = (Use.STARTING, Use.WORKING)


def settings_of(body: wire.PoolRequest) -> PoolSettings:
    """Return the settings that a body asks for."""
    return PoolSettings(
        image=body.image,
        engine=body.engine,
        manifest=body.manifest,
        command=tuple(body.command),
        minimum=body.min,
        maximum=body.max,
        warm=body.warm,
        quiet_s=body.quiet_s,
        cpu=body.cpu,
        memory_mib=body.memory_mib,
        disk_mib=body.disk_mib,
    )


def pool_view(detail: PoolDetail) -> wire.PoolView:
    """Return a pool as lists show it."""
    return wire.PoolView(**_fields(detail))


def pool_detail(detail: PoolDetail) -> wire.PoolDetail:
    """Return a pool with its last steps."""
    return wire.PoolDetail(**_fields(detail), steps=[_step(step) for step in detail.steps])


def _fields(detail: PoolDetail) -> dict[str, Any]:
    pool, settings = detail.pool, detail.pool.settings
    # What is neither waited for nor in anybody's way is no trouble any more.
    trouble = pool.trouble if pool.trouble and (detail.held or pool.trouble.until > utc_now()) else None
    return {
        "role": pool.role,
        "state": "draining" if pool.leaving else "active",
        "image": settings.image,
        "engine": settings.engine.value,
        "manifest": settings.manifest,
        "command": list(settings.command),
        "min": settings.minimum,
        "max": settings.maximum,
        "warm": settings.warm,
        "quiet_s": settings.quiet_s,
        "cpu": settings.cpu,
        "memory_mib": settings.memory_mib,
        "disk_mib": settings.disk_mib,
        "desired": detail.desired,
        "workers": sum(machine.use in _SERVING for machine in detail.machines),
        "held": detail.held,
        "trouble": None if trouble is None else _trouble(trouble),
        "machines": [_machine(machine, detail) for machine in detail.machines],
        "last_step": None if pool.last_step is None else _step(pool.last_step),
        "created_at": rfc3339(pool.created_at),
        "changed_at": rfc3339(pool.changed_at),
    }


def _machine(machine: Machine, detail: PoolDetail) -> wire.PoolMachineView:
    state = detail.states.get(machine.id)
    return wire.PoolMachineView(
        vm_id=machine.vm_id,
        env_id=machine.env_id,
        state=None if state is None else state.value,
        use=machine.use.value,
        agent=machine.agent_name,
        since=rfc3339(machine.since),
        reason=machine.reason,
    )


def _step(step: Step) -> wire.PoolStepView:
    return wire.PoolStepView(at=rfc3339(step.at), from_=step.before, to=step.after, reason=step.reason)


def _trouble(trouble: Trouble) -> wire.PoolTroubleView:
    return wire.PoolTroubleView(reason=trouble.reason, count=trouble.count, next_try_at=rfc3339(trouble.until))
