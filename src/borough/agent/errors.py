"""What can go wrong for an agent. ``code`` is stable and for programs, the text is for people."""


class AgentError(Exception):
    """The root of all of them."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class EnvMissing(AgentError):
    """The environment does not say who this agent is: it was not started by ``agentd``."""


class SocketError(AgentError):
    """The daemon cannot be reached, or went away."""


class ProtocolError(AgentError):
    """The daemon answered with something that is no answer to the question."""


class Denied(AgentError):
    """The agent may not do this."""


class NotFound(AgentError):
    """What was named is not there."""


class InvalidTransition(AgentError):
    """The lifecycle does not go this way."""


class ToolFailed(AgentError):
    """A tool was refused, or ran and failed."""


_BY_CODE: dict[str, type[AgentError]] = {
    "illegal_transition": InvalidTransition,
    "unknown_phase": InvalidTransition,
    "denied": Denied,
    "scope_missing": Denied,
    "not_related": Denied,
    "over_ceiling": Denied,
    "capability_escalation_denied": Denied,
}


def error_of(message: str, code: str) -> AgentError:
    """Return the exception for an answer that is an error."""
    kind = _BY_CODE.get(code)
    if kind is None:
        kind = NotFound if code.endswith("_not_found") else AgentError
    return kind(message, code=code)
