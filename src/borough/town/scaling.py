"""The autoscaling signal: how much work there is, how many agents serve it, how many there should be."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from borough.town.agents import AgentState, is_live


class Recommendation(StrEnum):
    """What an autoscaler should do."""

    SCALE_UP = "scale_up"
    STEADY = "steady"
    SCALE_DOWN = "scale_down"
    SCALE_TO_ZERO = "scale_to_zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReading:
    """What the signal needs to know of one agent."""

    state: AgentState
    last_active_at: datetime
    last_heartbeat: datetime
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of a town's counts at one moment, read in one step."""

    at: datetime
    backlog: int
    """Unread entries of the shared backlog."""
    assigned: int
    """Unread work in agents' inboxes."""
    urgent: int
    """Unread urgent entries of agents' inboxes, mail included."""
    in_flight: int
    """Leased tasks."""
    delayed: int
    dead_letters: int
    completed_total: int
    """Tasks completed since the town began; never falls."""
    agents: tuple[AgentReading, ...]
    missions_active: int
    mission_open: bool
    """Whether some mission is neither completed nor failed."""
    mission_last_tick: datetime | None

    @property
    def pending(self) -> int:
        """Work that nobody has begun."""
        return self.backlog + self.assigned

    def live_agents(self) -> tuple[AgentReading, ...]:
        """Return the agents that count as running."""
        return tuple(
            agent
            for agent in self.agents
            if is_live(
                agent.state,
                lease_expires_at=agent.lease_expires_at,
                last_heartbeat=agent.last_heartbeat,
                now=self.at,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What ``GET /api/scaling`` tells, less the town's name."""

    at: datetime
    queue_depth: int
    pending_tasks: int
    in_flight_tasks: int
    active_agents: int
    cold_agents: int
    desired_agents: int
    max_agents: int
    recommendation: Recommendation


def signal(snapshot: Snapshot, *, max_agents: int, idle_timeout: timedelta) -> Signal:
    """Return the signal for ``snapshot``. An ``idle_timeout`` of zero means that idle agents never leave."""
    live = snapshot.live_agents()
    demand = snapshot.pending + snapshot.in_flight
    return Signal(
        at=snapshot.at,
        queue_depth=demand,
        pending_tasks=snapshot.pending,
        in_flight_tasks=snapshot.in_flight,
        active_agents=len(live),
        cold_agents=sum(agent.state is AgentState.COLD for agent in snapshot.agents),
        desired_agents=min(demand, max_agents),
        max_agents=max_agents,
        recommendation=_recommend(snapshot, live, demand, idle_timeout),
    )


def _recommend(
    snapshot: Snapshot, live: tuple[AgentReading, ...], demand: int, idle_timeout: timedelta
) -> Recommendation:
    # The reference page defines scale_up by work, not by the capped target, so it also holds at the cap.
    if demand == 0 and _all_idle(snapshot.at, live, idle_timeout):
        return Recommendation.SCALE_TO_ZERO
    if demand > len(live):
        return Recommendation.SCALE_UP
    if demand < len(live) and snapshot.pending == 0:
        return Recommendation.SCALE_DOWN
    return Recommendation.STEADY


def _all_idle(now: datetime, live: tuple[AgentReading, ...], idle_timeout: timedelta) -> bool:
    if not idle_timeout:
        return not live
    return all(agent.state is AgentState.IDLE and now - agent.last_active_at >= idle_timeout for agent in live)
