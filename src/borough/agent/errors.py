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


_BY_CODE: dict[str, type[AgentError]] = {"illegal_transition": InvalidTransition, "unknown_phase": InvalidTransition}
_BY_KIND: dict[str, type[AgentError]] = {"forbidden": Denied, "not_found": NotFound}


def error_of(message: str, *, code: str, kind: str) -> AgentError:
    """Return the exception for an answer that is an error."""
    return (_BY_CODE.get(code) or _BY_KIND.get(kind, AgentError))(message, code=code)
