"""The autoscaler: look at all machines, settle what changed, ask the rule, act. All its state is in the stores.

One pass after the other; what takes long (starting a worker in a machine) goes on beside the passes, and a machine
with which something is being done is left alone by them. After a crash a pass finds every machine by its row.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.fleet.vms import VmState
from borough.pools.pools import Machine, Pool, Use
from borough.pools.ports import PoolStore
from borough.pools.scaling import Boot, Decision, Drain, End, Failure, Member, Situation, Start, decide
from borough.pools.services.machines import PoolMachines, told_of
from borough.pools.services.telling import Telling
from borough.pools.services.watching import Looked, Watch
from borough.pools.services.workers import PoolWorkers, free_name
from borough.pools.settling import Become, Then, settle
from borough.pools.sharing import Taker, share
from borough.town.agents import TERMINAL, Agent
from borough.town.services.agents import AgentService
from borough.town.services.readings import ReadingService

log = structlog.get_logger(__name__)

_SERVING = (Use.STARTING, Use.WORKING)


@dataclass(slots=True)
class Seen:
    """What the last pass saw, for whoever looks; nothing depends on it."""

    decisions: dict[str, Decision] = field(default_factory=dict)
    states: dict[str, VmState] = field(default_factory=dict)
    """By machine of a pool: how the fleet has it."""


class Autoscaler:
    """Makes every pool as large as its work asks for."""

    def __init__(
        self,
        store: PoolStore,
        *,
        watch: Watch,
        machines: PoolMachines,
        workers: PoolWorkers,
        telling: Telling,
        agents: AgentService,
        readings: ReadingService,
        max_agents: int,
    ) -> None:
        self._store = store
        self._watch = watch
        self._machines = machines
        self._workers = workers
        self._telling = telling
        self._agents = agents
        self._readings = readings
        self._max_agents = max_agents
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.seen = Seen()

    async def act(self) -> None:
        """Pass over all pools once."""
        pools = {pool.role: pool for pool in await self._store.pools()}
        if not pools:
            self.seen = Seen()
            return
        agents: dict[str, Agent] = {agent.id: agent for agent in await self._agents.all()}
        looked = await self._settle_all(pools, agents)
        pools = {pool.role: pool for pool in await self._store.pools()}
        members = self._members(await self._store.machines(), looked)
        pending = await self._pending(pools, members)
        spare = self._max_agents - sum(agent.state not in TERMINAL for agent in agents.values())
        names = {agent.name for agent in agents.values() if agent.state not in TERMINAL}
        decisions: dict[str, Decision] = {}
        for role, pool in pools.items():
            situation = Situation(
                at=utc_now(), pending=pending.get(role, 0), members=members[role], spare_agents=spare
            )  # fmt: skip
            decision = decisions[role] = decide(pool, situation)
            spare -= sum(isinstance(action, Start) for action in decision.actions)
            try:
                await self._perform(pool, decision, names)
                if pool.leaving and not members[role]:
                    await self._store.remove(role)
            except BoroughError as error:
                log.warning("pool.not_served", pool=role, error=error.message, code=error.code)
        self.seen = Seen(
            decisions=decisions, states={name: each.vm.state for name, each in looked.items() if each.vm is not None}
        )

    async def close(self) -> None:
        """Let go of what is being started; it is found again."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is there -------------------------------------------------------------------------------------------------

    async def _settle_all(self, pools: Mapping[str, Pool], agents: Mapping[str, Agent]) -> Mapping[str, Looked]:
        """Look at every machine and write down what became of it; one machine's trouble is not the others'."""
        looked: dict[str, Looked] = {}
        failures: dict[str, list[Failure]] = defaultdict(list)
        machines = await self._store.machines()
        for machine in machines:
            looked[machine.id] = found = await self._watch.look(machine, agents)
            if machine.id in self._under_way:
                continue
            try:
                failure = await self._settle(pools[machine.role], machine, found, agents)
            except BoroughError as error:
                log.warning("pool.machine_not_settled", machine=machine.id, error=error.message, code=error.code)
            else:
                failures[machine.role] += [] if failure is None else [failure]
        for role, failed in failures.items():
            if failed:
                workers = sum(each.role == role and each.use in _SERVING for each in machines)
                await self._telling.trouble(role, failed, workers=workers)
        return looked

    async def _settle(
        self, pool: Pool, machine: Machine, looked: Looked, agents: Mapping[str, Agent]
    ) -> Failure | None:  # fmt: skip
        if looked.expires_soon:
            await self._machines.prolong(machine)
        settled = settle(machine, looked.found, at=utc_now())
        match settled:
            case Become():
                return await self._become(pool, machine, settled)
            case Then.ASK:
                return await self._machines.ask(pool, machine)
            case Then.DELETE:
                await self._workers.end(machine, agents)
                await self._machines.delete(machine)
            case Then.FORGET:
                await self._workers.end(machine, agents)
                await self._store.forget(machine.id)
            case _:
                pass
        return None

    async def _become(self, pool: Pool, machine: Machine, settled: Become) -> Failure | None:
        moved = replace(machine, use=settled.use, since=utc_now(), reason=settled.reason)
        await self._store.move(moved)
        log.info("pool.machine", pool=pool.role, machine=machine.id, use=settled.use.value, reason=settled.reason)
        trouble = pool.trouble
        shown = settled.proven or (settled.use is Use.WARM and trouble is not None and not trouble.booted)
        if trouble is not None and shown and machine.created_at >= trouble.at:  # it was asked for since
            await self._telling.over(pool)
        if not settled.failed:
            return None
        booted = machine.use not in (Use.BOOTING, Use.WARM)
        return Failure(reason=settled.reason, asked_at=machine.created_at, booted=booted)

    def _members(self, machines: Sequence[Machine], looked: Mapping[str, Looked]) -> Mapping[str, list[Member]]:
        members: dict[str, list[Member]] = defaultdict(list)
        for machine in machines:
            each = looked.get(machine.id)
            busy = each is not None and each.found.busy
            idle_since = None if each is None else each.found.idle_since
            members[machine.role].append(Member(machine=machine, busy=busy, idle_since=idle_since))
        return members

    async def _pending(self, pools: Mapping[str, Pool], members: Mapping[str, Sequence[Member]]) -> Mapping[str, int]:
        takers = [
            Taker(role=role, room=pool.settings.maximum - sum(each.busy for each in members[role]))
            for role, pool in pools.items()
            if not pool.leaving
        ]
        return share(await self._readings.waiting(), takers)

    # -- what is done --------------------------------------------------------------------------------------------------

    async def _perform(self, pool: Pool, decision: Decision, names: set[str]) -> None:
        workers = decision.workers
        if decision.held is not None:
            await self._telling.held(pool, workers=workers, reason=decision.held)
        for action in decision.actions:
            match action:
                case Boot():
                    await self._boot(pool, decision, action)
                case Start():
                    workers += await self._start(pool, action, names, workers)
                case Drain():
                    workers -= await self._drain(pool, action, workers)
                case End():
                    await self._end(pool, action, workers)

    async def _boot(self, pool: Pool, decision: Decision, action: Boot) -> None:
        machines = await self._machines.intend(pool, action.count, reason=action.reason)
        asked = [await self._machines.ask(pool, machine) for machine in machines]
        failures = [failure for failure in asked if failure is not None]
        booted = len(asked) - len(failures)
        if booted:
            what = "a machine is booted" if booted == 1 else f"{booted} machines are booted"
            after = max(decision.workers, decision.desired)
            await self._telling.step(
                pool.role, before=decision.workers, after=after, reason=f"{what}: {action.reason}"
            )  # fmt: skip
        if failures:
            await self._telling.trouble(pool.role, failures, workers=decision.workers)

    async def _start(self, pool: Pool, action: Start, names: set[str], workers: int) -> int:
        taken = names | {each.agent_name for each in await self._store.machines() if each.agent_name is not None}
        name = free_name(pool.role, taken)
        machine = await self._store.move(
            replace(
                action.machine, use=Use.STARTING, since=utc_now(), reason=action.reason, agent_name=name
            )
        )  # fmt: skip
        names.add(name)
        self._beside(machine, lambda: self._started(pool, machine, workers))
        reason = f"{name} is started: {action.reason}"
        await self._telling.step(pool.role, before=workers, after=workers + 1, reason=reason, machine=machine.id)
        return 1

    async def _started(self, pool: Pool, machine: Machine, workers: int) -> None:
        """Start a worker; what goes wrong ends the machine, for it is used now."""
        try:
            await self._workers.start(pool, machine)
        except (BoroughError, TimeoutError) as error:
            reason = told_of(error) if isinstance(error, BoroughError) else "its machine did not take a command in time"
            await self._gave_up(pool, machine, reason, workers)

    async def _gave_up(self, pool: Pool, machine: Machine, reason: str, workers: int) -> None:
        known = next((each for each in await self._store.machines(pool.role) if each.id == machine.id), None)
        if known is None:
            return
        await self._store.move(replace(known, use=Use.ENDING, since=utc_now(), reason=reason))
        failure = Failure(reason=reason, asked_at=machine.created_at, booted=True)
        await self._telling.trouble(pool.role, [failure], workers=workers)

    async def _drain(self, pool: Pool, action: Drain, workers: int) -> int:
        machine = action.machine
        if machine.id in self._under_way or not await self._workers.drain(machine, even_busy=action.even_busy):
            return 0  # work has come meanwhile, or it is not there yet
        await self._store.move(replace(machine, use=Use.DRAINING, since=utc_now(), reason=action.reason))
        reason = f"{machine.agent_name} leaves: {action.reason}"
        await self._telling.step(pool.role, before=workers, after=workers - 1, reason=reason, machine=machine.id)
        return 1

    async def _end(self, pool: Pool, action: End, workers: int) -> None:
        await self._store.move(replace(action.machine, use=Use.ENDING, since=utc_now(), reason=action.reason))
        reason = f"a machine that was ready goes: {action.reason}"
        await self._telling.step(pool.role, before=workers, after=workers, reason=reason, machine=action.machine.id)

    def _beside(self, machine: Machine, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(machine, work), name=f"pool {machine.id}")
        self._under_way[machine.id] = task
        task.add_done_callback(lambda _: self._under_way.pop(machine.id, None))

    async def _guarded(self, machine: Machine, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BoroughError as error:
            log.warning("pool.worker_not_started", machine=machine.id, error=error.message)
        except Exception:
            log.exception("pool.worker_not_started", machine=machine.id)
