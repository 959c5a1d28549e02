"""The town's Prometheus text: families, order and labels of the reference page, then our own.

Values that count are printed as whole numbers: scrapers of the reference compare them as text.
"""

from collections import Counter
from collections.abc import Iterable

from borough.town.agents import AgentState
from borough.town.services.readings import Measured

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[str, str, str, Iterable[tuple[str, str]]]


def render(measured: Measured) -> str:
    """Return the metrics of one snapshot."""
    states = Counter(agent.state.value for agent in measured.snapshot.agents)
    return _text(_families(measured, states))


def render_failure(error: str) -> str:
    """Return the same families with zeros, and why as the last line."""
    zeros: list[_Sample] = [
        (name, kind, told, [("", "1" if name == "tinytown_up" else _zero(name))])
        for name, kind, told in _HEADS
        if name != "tinytown_agents_total"
    ]
    heads: list[_Sample] = [("tinytown_agents_total", "gauge", _AGENTS_TOLD, [])]
    return _text([*zeros[:2], *heads, *zeros[2:]]) + f"# tinytown_metrics_error {' '.join(error.split())}\n"


def _zero(name: str) -> str:
    return "0.000000" if name == "tinytown_redis_latency_seconds" else "0"


_AGENTS_TOLD = "Agents by state."
_HEADS: tuple[tuple[str, str, str], ...] = (
    ("tinytown_up", "gauge", "Whether townhall runs."),
    ("tinytown_ready", "gauge", "Whether the store answers."),
    ("tinytown_agents_total", "gauge", _AGENTS_TOLD),
    ("tinytown_tasks_pending", "gauge", "Tasks that nobody has begun: backlog and inboxes."),
    ("tinytown_tasks_completed_total", "counter", "Tasks completed since the town began."),
    ("tinytown_missions_active", "gauge", "Active missions."),
    ("tinytown_redis_latency_seconds", "gauge", "Round trip to the store."),
    ("tinytown_backlog_tasks", "gauge", "Tasks in the backlog."),
    ("tinytown_tasks_assigned_pending", "gauge", "Tasks in inboxes that nobody has begun."),
    ("tinytown_urgent_messages", "gauge", "Unread urgent entries in inboxes."),
    ("borough_tasks_in_flight", "gauge", "Leased tasks."),
    ("borough_tasks_delayed", "gauge", "Tasks that wait for their next attempt."),
    ("borough_dead_letters", "gauge", "Tasks that are out of attempts."),
    ("borough_agents_live", "gauge", "Agents whose lease holds."),
)


def _families(measured: Measured, states: Counter[str]) -> list[_Sample]:
    snapshot = measured.snapshot
    values: dict[str, Iterable[tuple[str, str]]] = {
        "tinytown_up": [("", "1")],
        "tinytown_ready": [("", "1")],
        "tinytown_agents_total": [
            (f'{{state="{state}"}}', str(states[state]))
            for state in sorted(state.value for state in AgentState)
            if states[state]
        ],
        "tinytown_tasks_pending": [("", str(snapshot.pending))],
        "tinytown_tasks_completed_total": [("", str(snapshot.completed_total))],
        "tinytown_missions_active": [("", str(snapshot.missions_active))],
        "tinytown_redis_latency_seconds": [("", f"{measured.latency_s:.6f}")],
        "tinytown_backlog_tasks": [("", str(snapshot.backlog))],
        "tinytown_tasks_assigned_pending": [("", str(snapshot.assigned))],
        "tinytown_urgent_messages": [("", str(snapshot.urgent))],
        "borough_tasks_in_flight": [("", str(snapshot.in_flight))],
        "borough_tasks_delayed": [("", str(snapshot.delayed))],
        "borough_dead_letters": [("", str(snapshot.dead_letters))],
        "borough_agents_live": [("", str(len(snapshot.live_agents())))],
    }
    return [(name, kind, told, values[name]) for name, kind, told in _HEADS]


def _text(families: Iterable[_Sample]) -> str:
    lines: list[str] = []
    for name, kind, told, samples in families:
        lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"
