"""What ``agentd`` tells an agent about itself, through the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from borough.agent.errors import EnvMissing

STANDARD_SOCKET = "/run/agentd/agentd.sock.agents"


@dataclass(frozen=True)
class Identity:
    """Who this agent is, and how it proves it."""

    agent_id: str
    socket: str
    nonce: str | None = field(repr=False)
    task: str | None
    model: str | None


def read_environment(environ: Mapping[str, str] | None = None) -> Identity:
    """Return who this process is.

    Raises:
        EnvMissing: the environment does not say so, or names a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    agent_id = environ.get("SCARAB_AGENT_ID")
    if not agent_id:
        raise EnvMissing("SCARAB_AGENT_ID is not set: start the agent with agentd (ash spawn manifest.yaml)")
    return Identity(
        agent_id=agent_id,
        socket=environ.get("SCARAB_SOCKET") or STANDARD_SOCKET,
        nonce=_nonce(environ.get("SCARAB_NONCE_FILE")),
        task=environ.get("SCARAB_TASK"),
        model=environ.get("SCARAB_MODEL"),
    )


def _nonce(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise EnvMissing(f"{path} (SCARAB_NONCE_FILE) cannot be read: {error.strerror}") from error
