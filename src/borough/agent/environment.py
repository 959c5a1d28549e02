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
    url: str | None = None
    """The gateway's address, for an agent in a machine; it is asked instead of the socket."""
    key: str | None = field(default=None, repr=False)


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
        task=environ.get("SCARAB_TASK") or None,
        model=environ.get("SCARAB_MODEL") or None,
        url=_url(environ),
        key=environ.get("BOROUGH_KEY") or None,
    )


def _url(environ: Mapping[str, str]) -> str | None:
    url = environ.get("BOROUGH_URL")
    if not url or environ.get("SCARAB_SOCKET"):
        return None
    if not url.startswith(("http://", "https://")):
        raise EnvMissing(f"BOROUGH_URL is no address of a gateway: {url!r}")
    if not environ.get("BOROUGH_KEY"):
        raise EnvMissing("BOROUGH_KEY is not set: BOROUGH_URL alone does not say who this agent is")
    return url


def _nonce(path: str | None) -> str | None:
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise EnvMissing(f"{path} (SCARAB_NONCE_FILE) cannot be read: {error.strerror}") from error
