"""Who is calling, in the town's terms: an operator, a worker, or an agent CLI within its attempt."""

from borough.core.errors import Forbidden, Invalid
from borough.core.ids import AgentId, MessageId, TaskId, canonical_id
from borough.http.operations import Call
from borough.town.services.tasks import Ending
from borough.town.services.workers import Worker


def task_id(call: Call) -> TaskId:
    """Return the task that the path names.

    Raises:
        Invalid: it is not a UUID (``invalid_task_id``, which the reference answers with 400).
    """
    return TaskId(_uuid(call.path["task_id"], "task id", "invalid_task_id"))


def message_id(call: Call) -> MessageId:
    """Return the message that the path names; raises ``Invalid`` (``invalid_message_id``)."""
    return MessageId(_uuid(call.path["message_id"], "message id", "invalid_message_id"))


def optional_task_id(text: str | None, pointer: str) -> TaskId | None:
    """Return a task id that a body names; raises ``Invalid`` (``invalid_task_id``)."""
    return None if text is None else TaskId(_uuid(text, "task id", "invalid_task_id", pointer))


def optional_agent_id(text: str | None, pointer: str) -> AgentId | None:
    """Return an agent id that a body names; raises ``Invalid`` (``invalid_agent_id``)."""
    return None if text is None else AgentId(_uuid(text, "agent id", "invalid_agent_id", pointer))


def _uuid(text: str, what: str, code: str, pointer: str | None = None) -> str:
    try:
        return canonical_id(text)
    except ValueError:
        raise Invalid(
            f"{text[:80]!r} is not a {what}",
            code=code,
            resolution=f"give the whole {what}, a UUID such as 6f1d7a2e-0000-4000-8000-000000000000",
            details={"pointer": pointer} if pointer else {},
        ) from None


def name_of(call: Call) -> str:
    """Return what events know the caller by."""
    return call.principal.id


def the_worker(call: Call) -> Worker:
    """Return the worker that calls for the agent of the path.

    Raises:
        Forbidden: the token is another agent's, or only an attempt's.
    """
    grant = call.principal.worker
    if grant is None or grant.task_id is not None or grant.agent_id != call.path["agent"]:
        raise Forbidden(
            "only the worker of this very agent may do this",
            code="not_your_agent",
            resolution="use the token that the worker was started with, and the agent's id in the path",
        )
    return Worker(agent_id=grant.agent_id, incarnation=grant.incarnation)


def ending(call: Call, task: TaskId, epoch: int | None) -> Ending:
    """Return who ends the attempt: with an attempt's token its own epoch counts, whatever the body says.

    Raises:
        Forbidden: the token speaks for another task.
    """
    grant = call.principal.worker
    if grant is None:
        return Ending(by=name_of(call), epoch=epoch)
    if grant.task_id != task:
        raise Forbidden(
            f"this token does not speak for task {task}",
            code="other_attempt",
            resolution="an agent may only end the task it was given; ask the supervisor for anything else",
        )
    return Ending(by=name_of(call), epoch=grant.epoch)


def sender(call: Call, named: str | None) -> str | None:
    """Return whom a message is from: an agent speaks for itself only.

    Raises:
        Forbidden: an agent's token names another sender.
    """
    grant = call.principal.worker
    if grant is None:
        return named
    if named is not None and named != grant.agent_id:
        raise Forbidden(
            "an agent's token cannot send in another's name",
            code="not_your_name",
            resolution="leave 'from' out",
        )
    return grant.agent_id
