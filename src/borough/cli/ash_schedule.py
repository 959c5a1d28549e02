"""``ash scheduler``, and the commands that wait for a later version: ``ash anomaly``, ``ash replay timeline``."""

from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, flat, member, show_table
from borough.cli.ash_workspace import rollback
from borough.cli.output import output

_HERE: Final = "borough.cli.ash_schedule"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

scheduler = AshGroup(
    "scheduler",
    help="Priorities, deadlines and budgets.",
    example=f"ash scheduler stats\nash scheduler set-priority {_ID} 80",
    table={
        "stats": (f"{_HERE}:stats", "Show tools and agents, what they cost, how long they take."),
        "info": (f"{_HERE}:info", "Show one agent's."),
        "set-deadline": (f"{_HERE}:set_deadline", "Say until when an agent has to be done."),
        "clear-deadline": (f"{_HERE}:clear_deadline", "Say no more until when."),
        "set-priority": (f"{_HERE}:set_priority", "Say how urgent an agent is, from 1 to 100."),
        "set-budget": (f"{_HERE}:set_budget", "Say how much an agent may use."),
    },
)
anomaly = AshGroup(
    "anomaly",
    help="What was out of the ordinary.",
    example="ash anomaly list",
    table={"list": (f"{_HERE}:anomalies", "List it.")},
)
replay = AshGroup(
    "replay",
    help="What an agent did, in order.",
    example=f"ash replay timeline {_ID}",
    table={
        "timeline": (f"{_HERE}:timeline", "Ledger, observations and snapshots together."),
        "rollback": (f"{_HERE}:rollback", "Return the workspace to a snapshot."),
    },
)

__all__ = ["anomaly", "replay", "rollback", "scheduler"]


@ash_command("stats", example="ash scheduler stats")
def stats() -> None:
    """Show tools and agents, what they cost, how long they take."""
    found = ask("SchedulerStats")
    out = output()

    def human() -> None:
        out.table(
            ("tool", "calls", "cost", "mean ms"),
            [(one["tool"], one["calls"], one["cost"], one["mean_latency_ms"]) for one in found["tools"]],
            empty="no tool was called",
        )
        out.table(
            ("id", "name", "priority", "deadline", "cost", "state"),
            [
                (one["agent_id"], one["name"], one["priority"], one["deadline"], one["spent"]["cost"], one["state"])
                for one in found["agents"]
            ],
            empty="no agents run",
        )

    out.show(found, human)


@ash_command("info", example=f"ash scheduler info {_ID}")
@click.argument("agent_id")
def info(*, agent_id: str) -> None:
    """Show one agent's priority, deadline, budget and what it has used."""
    _shown(ask("SchedulerInfo", agent_id=agent_id))


@ash_command("set-deadline", example=f"ash scheduler set-deadline {_ID} 2026-12-31T18:00:00Z")
@click.argument("agent_id")
@click.argument("deadline")
def set_deadline(*, agent_id: str, deadline: str) -> None:
    """Say until when an agent has to be done (RFC 3339); it becomes more urgent as it comes near."""
    _shown(ask("SchedulerSetDeadline", agent_id=agent_id, deadline=deadline))


@ash_command("clear-deadline", example=f"ash scheduler clear-deadline {_ID}")
@click.argument("agent_id")
def clear_deadline(*, agent_id: str) -> None:
    """Say no more until when an agent has to be done."""
    _shown(ask("SchedulerClearDeadline", agent_id=agent_id))


@ash_command("set-priority", example=f"ash scheduler set-priority {_ID} 80")
@click.argument("agent_id")
@click.argument("priority", type=click.IntRange(1, 100))
def set_priority(*, agent_id: str, priority: int) -> None:
    """Say how urgent an agent is, from 1 to 100; 50 is usual."""
    _shown(ask("SchedulerSetPriority", agent_id=agent_id, priority=priority))


@ash_command("set-budget", example=f"ash scheduler set-budget {_ID} --calls 200 --cost 2.5")
@click.argument("agent_id")
@click.option("--calls", type=click.IntRange(min=0), help="At most so many calls of tools.")
@click.option("--tokens", type=click.IntRange(min=0), help="At most so many tokens of models.")
@click.option("--cost", type=click.FloatRange(min=0), help="At most so many cost units.")
@click.option("--wall-time", "wall_time_secs", type=click.IntRange(min=1), metavar="SEC", help="For so long at most.")
def set_budget(*, agent_id: str, **told: float | None) -> None:
    """Say how much an agent may use, what it has used included; what is left out is not limited."""
    budget = {name: value for name, value in told.items() if value is not None}
    _shown(ask("SchedulerSetBudget", agent_id=agent_id, budget=budget))


@ash_command("list", example="ash anomaly list")
@click.option("--agent", "agent_id", metavar="ID", help="Only of this agent.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest ones.")
def anomalies(*, agent_id: str | None, limit: int) -> None:
    """List what was out of the ordinary. Not available yet: detection comes with a later version."""
    show_table(
        ask("AnomalyList", agent_id=agent_id, limit=limit)["anomalies"],
        [
            ("timestamp", member("detected_at")),
            ("agent", member("agent_id")),
            ("rule", member("rule")),
            ("detail", member("detail")),
        ],
        empty="nothing",
    )


@ash_command("timeline", example=f"ash replay timeline {_ID}")
@click.argument("agent_id")
@click.option("--since", metavar="TIME", help="From then on (RFC 3339).")
@click.option("--until", metavar="TIME", help="Up to then (RFC 3339).")
def timeline(*, agent_id: str, since: str | None, until: str | None) -> None:
    """Show what an agent did. Not available yet: use ``ash audit --agent`` and ``ash obs query``."""
    show_table(
        ask("ReplayTimeline", agent_id=agent_id, since=since, until=until)["entries"],
        [
            ("timestamp", member("timestamp")),
            ("source", member("source")),
            ("event", member("event")),
            ("detail", member("detail")),
        ],
        empty="nothing",
    )


def _shown(found: dict[str, Any]) -> None:
    output().show(found, lambda: output().fields(flat(found)))
