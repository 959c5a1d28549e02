"""Agent CLIs: how the program that does an agent's thinking is started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class InputMode(StrEnum):
    """How the prompt reaches the program."""

    STDIN = "stdin"
    FILE = "file"
    """Its path is the last argument."""
    ARGUMENT = "argument"
    """Its text is the last argument."""


class OnExitZero(StrEnum):
    """What an exit code of 0 means when the program did not end its task itself."""

    COMPLETE = "complete"
    REPROMPT = "reprompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCli:
    """One preset, resolved. ``argv`` is run as it is, never by a shell."""

    name: str
    argv: tuple[str, ...]
    input: InputMode = InputMode.STDIN
    workdir: str | None = None
    """Relative to the town's root; ``None``: the root itself."""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int = 3600
    """How long one attempt may take unless the task says otherwise."""
    on_exit_zero: OnExitZero = OnExitZero.COMPLETE
