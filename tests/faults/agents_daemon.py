"""A daemon of its own process that begins something with an agent and stands still in the middle of it, to be killed.

``python -m tests.faults.agents_daemon FOLDER SCENARIO`` says the agent's id, or ``there``, on a line of its own once it
is where it is meant to be killed.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from borough.core.ids import AgentId
from tests.services.agents_kit import Daemon, inline, manifest, operator, shell

LASTING = """
trap '' TERM
(setsid sh -c 'trap "" TERM; while :; do sleep 1; done' &)
while [ ! -e go ]; do sleep 0.05; done
exit 3
"""
"""Ends when told to by a file, and leaves behind a child of its child that heeds no signal."""


def stands_still(target: object, name: str) -> None:
    """Let ``target.name`` say that it is reached and never return."""

    async def never(*_: Any, **__: Any) -> None:
        sys.stdout.write("there\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    setattr(target, name, never)


async def main(folder: Path, scenario: str) -> None:
    daemon = Daemon(folder)
    await daemon.open()
    if scenario == "before-the-process":
        stands_still(daemon.engine.runner, "start")
        await daemon.service.spawn(operator(), inline(shell(LASTING, lifecycle={"restart_policy": "always"})))
    elif scenario == "before-plan":
        stands_still(daemon.stores.agents, "move")
        await daemon.service.spawn(operator(), inline(shell(LASTING)))
    elif scenario == "while-ending":
        agent_id = await daemon.spawn(shell(LASTING))
        stands_still(daemon.engine.runner, "end")
        await daemon.service.kill(operator(), agent_id)
    elif scenario == "while-running":
        working, virtual = await daemon.spawn(shell(LASTING)), await daemon.spawn(manifest("virtual"))
        await daemon.service.session_opened(working, (await daemon.stores.agents.get(AgentId(working))).run_id)
        sys.stdout.write(f"{working} {virtual}\n")
        sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
