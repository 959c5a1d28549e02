"""The Prometheus text: families, order and values of the reference page."""

from datetime import UTC, datetime

from borough.http.town.metrics import render, render_failure
from borough.town.agents import AgentState
from borough.town.scaling import AgentReading, Snapshot
from borough.town.services.readings import Measured

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = [
    "tinytown_up",
    "tinytown_ready",
    "tinytown_agents_total",
    "tinytown_tasks_pending",
    "tinytown_tasks_completed_total",
    "tinytown_missions_active",
    "tinytown_redis_latency_seconds",
    "tinytown_backlog_tasks",
    "tinytown_tasks_assigned_pending",
    "tinytown_urgent_messages",
]


def families(text: str) -> list[str]:
    return [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]


def measured() -> Measured:
    reading = AgentReading(state=AgentState.STARTING, last_active_at=NOW, last_heartbeat=NOW, lease_expires_at=None)
    return Measured(
        latency_s=0.000123,
        snapshot=Snapshot(
            at=NOW,
            backlog=1,
            assigned=1,
            urgent=0,
            in_flight=0,
            delayed=0,
            dead_letters=0,
            completed_total=1,
            agents=(reading, reading),
            missions_active=1,
            mission_open=True,
            mission_last_tick=None,
        ),
    )


def test_the_reference_families_come_first_and_in_order() -> None:
    assert families(render(measured()))[: len(REFERENCE)] == REFERENCE


def test_values_are_whole_numbers() -> None:
    lines = render(measured()).splitlines()
    for expected in (
        'tinytown_agents_total{state="starting"} 2',
        "tinytown_tasks_pending 2",
        "tinytown_tasks_completed_total 1",
        "tinytown_missions_active 1",
        "tinytown_backlog_tasks 1",
        "tinytown_redis_latency_seconds 0.000123",
    ):
        assert expected in lines


def test_a_failure_keeps_the_families_and_says_why() -> None:
    text = render_failure("store\ndown")
    assert families(text)[: len(REFERENCE)] == REFERENCE
    assert text.splitlines()[-1] == "# tinytown_metrics_error store down"
    assert "tinytown_ready 0" in text.splitlines()
    assert "tinytown_agents_total{" not in text
