"""What the town's operation rows share: query structs and tables of errors."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.core.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest, decode_cursor
from borough.http.operations import Answer
from borough.http.town import wire

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]

AGENT_ERRORS = {"agent_not_found": 404, "agent_ambiguous": 409}
RUNNING_AGENT_ERRORS = {**AGENT_ERRORS, "agent_not_running": 409, "agent_is_supervisor": 409}
TASK_ERRORS = {"invalid_task_id": 400, "task_not_found": 404}
LEASE_ERRORS = {"stale_incarnation": 409, "not_your_agent": 403, "agent_not_found": 404}
TEXT_ERRORS = {"text_too_long": 422}
ENDING_ERRORS = {**TASK_ERRORS, **TEXT_ERRORS, "stale_epoch": 409, "task_finished": 409, "other_attempt": 403}


class PageQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None


def page_request(query: PageQuery) -> PageRequest:
    """Return the page that was asked for; raises ``Invalid`` (``invalid_cursor``)."""
    return PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")


def agent_status_answer() -> tuple[Answer, ...]:
    """Return the answer of every route that moves an agent."""
    return (Answer(status=200, body=wire.AgentStatus, description="done"),)
