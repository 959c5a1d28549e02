"""The whole town surface: every row of its operation table."""

from borough.http.operations import Operation
from borough.http.town import agents, backlog, events, logs, messages, public, recovery, tasks, town, workers

OPERATIONS: tuple[Operation, ...] = (
    *public.OPERATIONS,
    *town.OPERATIONS,
    *tasks.OPERATIONS,
    *logs.OPERATIONS,
    *backlog.OPERATIONS,
    *messages.OPERATIONS,
    *agents.OPERATIONS,
    *workers.OPERATIONS,
    *recovery.OPERATIONS,
    *events.OPERATIONS,
)
