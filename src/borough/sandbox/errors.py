"""What can go wrong with a sandbox or a run. Each error has a stable ``code``, and says why and what to do next."""

from collections.abc import Iterator
from contextlib import contextmanager

from borough.core.errors import BoroughError, Forbidden, NotFound, Unavailable
from borough.sandbox.run_values import RunInfo
from borough.sandbox.values import CommandResult


class SandboxError(Exception):
    """Base of all of them."""

    def __init__(self, message: str, *, code: str, reason: str | None = None, resolution: str | None = None) -> None:
        told = (message, reason, resolution)
        super().__init__("; ".join(part for part in told if part))
        self.message = message
        self.code = code
        self.reason = reason
        self.resolution = resolution


class NothingThere(SandboxError):
    """The sandbox, file or image that is named does not exist."""


class NotAllowed(SandboxError):
    """The controller does not know the caller."""


class FleetUnavailable(SandboxError):
    """The controller or the host does not answer; trying again later may help."""


class Refused(SandboxError):
    """What was asked for is wrong or cannot be done as things are."""


class CommandFailed(SandboxError):
    """A command ended with another exit code than 0, and ``check`` was asked for."""

    def __init__(self, result: CommandResult) -> None:
        last = result.stderr.strip().splitlines()
        super().__init__(
            f"the command ended with exit code {result.exit_code}",
            code="command_failed",
            reason=last[-1] if last else None,
        )
        self.result = result


class RunFailed(SandboxError):
    """A run did not succeed, and ``check`` was asked for."""

    def __init__(self, info: RunInfo) -> None:
        super().__init__(
            f"{info.name} {info.state}", code=f"run_{info.state}", reason=info.reason, resolution=info.next
        )
        self.info = info


_KINDS: dict[type[BoroughError], type[SandboxError]] = {
    NotFound: NothingThere,
    Forbidden: NotAllowed,
    Unavailable: FleetUnavailable,
}


@contextmanager
def typed() -> Iterator[None]:
    """Raise what a client raises as an error of this package."""
    try:
        yield
    except BoroughError as problem:
        kind = next((kind for base, kind in _KINDS.items() if isinstance(problem, base)), Refused)
        raise kind(
            problem.message, code=problem.code, reason=problem.reason, resolution=problem.resolution
        ) from problem
