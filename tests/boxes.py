"""What tests of boxes share: an engine in a folder of its own, manifests, and agents that do something."""

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from borough.adapters import process
from borough.adapters.engines.bubblewrap.engine import Bubblewrap, build
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.process import OWNER, Marker
from borough.core.ids import AgentId, new_id
from borough.governance.capabilities import parse_capability
from borough.governance.manifests import Manifest, Program, Resources
from borough.governance.ports.confinement import AgentOrder, BoxNetwork
from borough.governance.ports.outside import Execution
from borough.governance.trust import TrustLevel

MIB = 1024 * 1024
NONCE = "5b0c1f"


def manifest(
    *words: str,
    trust: TrustLevel = TrustLevel.SANDBOXED,
    capabilities: tuple[str, ...] = (),
    resources: Resources | None = None,
    **more: Any,
) -> Manifest:
    """A manifest that starts ``words``; without any, nothing."""
    program = Program(command=words[0], args=words[1:]) if words else Program()
    return Manifest(
        name="tested", version="1.0.0", trust_level=trust, resources=resources or Resources(),
        capabilities=tuple(parse_capability(text) for text in capabilities), **{"program": program, **more},
    )  # fmt: skip


def order(agent_id: AgentId, of: Manifest, *, socket: str = "/nowhere", task: str | None = None) -> AgentOrder:
    """An order for a fresh run."""
    return AgentOrder(
        agent_id=agent_id, run_id=new_id(), manifest=of, task=task, model=None, socket=socket, nonce=NONCE
    )  # fmt: skip


def execution(agent_id: AgentId, of: Manifest, code: str, *, runtime: str = "sh", **more: Any) -> Execution:
    """Code to be run."""
    return Execution(agent_id=agent_id, manifest=of, runtime=runtime, code=code, **{"timeout_s": 20.0, **more})


def agent() -> AgentId:
    """A fresh id."""
    return AgentId(str(uuid4()))


@asynccontextmanager
async def engine(
    folder: Path, *, limits: BoxLimits | None = None, network: BoxNetwork | None = None, **settings: Any
) -> AsyncIterator[Bubblewrap]:
    """An engine whose boxes all end with the context."""
    made = build(
        BoxSettings(state=folder / "state", limits=limits or BoxLimits(), **settings), network=network
    )  # fmt: skip
    try:
        yield made
    finally:
        await stop(made)


async def stop(made: Bubblewrap) -> None:
    """End everything of an engine, and prove it."""
    if await made.keeper.boxes():
        await made.keeper.ask("stop", {})
    await made.close()
    process.reap(made.keeper.marker, grace_s=5.0)
    assert process.owned(made.keeper.marker) == []


def left_of(agent_id: AgentId) -> list[process.ProcessRef]:
    """What runs of an agent."""
    return process.owned(Marker(OWNER, f"{agent_id}:"))


def cmdline(pid: int) -> bytes:
    """The command line of a process; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def world_readable(folder: Path) -> None:
    """Let everybody read a folder, as one that is meant for agents of other users."""
    for where, _, files in os.walk(folder):
        Path(where).chmod(0o755)
        for name in files:
            path = Path(where, name)
            path.chmod(stat.S_IMODE(path.lstat().st_mode) | 0o444)


def short_folder() -> Path:
    """A folder with a short path: those of sockets are limited."""
    return Path(tempfile.mkdtemp(prefix="bx-", dir="/tmp"))
