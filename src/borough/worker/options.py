"""What a worker is told when it is started."""

from dataclasses import dataclass
from pathlib import Path

from borough.adapters.process import ProcessRef
from borough.worker.connection import ServerAddress
from borough.worker.run import END_GRACE_S

GOODBYE_S = 10.0
"""How long a worker that is to end tries to give its work back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom this worker serves."""

    agent_id: str
    incarnation: int
    token: str | None
    process: ProcessRef | None = None
    """Who we are to the server's machine, where that sees us from outside of our box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How this worker behaves on its machine."""

    address: ServerAddress
    identity: Identity
    state_dir: Path
    """A private folder of its own, for prompts, tokens and spooled output."""
    give_up_s: float = 300.0
    stay: bool = False
    """Stay without work too: whoever started us says when to leave."""
    end_grace_s: float = END_GRACE_S
