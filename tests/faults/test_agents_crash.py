"""The daemon is gone in the middle of a step: whatever was begun is taken up, concluded or undone by the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from borough.core.errors import NotFound, Unavailable
from borough.core.ids import AgentId
from borough.governance.lifecycle import Phase, Status
from tests.services.agents_kit import Daemon, inline, manifest, operator, shell

pytestmark = pytest.mark.anyio


class Gone(BaseException):
    """The daemon's process ends here: no step of its own follows."""


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    opened = Daemon(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


def dies_at(target: object, name: str, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> asyncio.Event:
    """Let the daemon hang for ever where it calls ``name`` (``after``: once that was done), as if it were gone."""
    reached, real = asyncio.Event(), getattr(target, name)

    async def never(*args: Any, **more: Any) -> None:
        if after:
            await real(*args, **more)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(target, name, never)
    return reached


async def crash_while(daemon: Daemon, step: Callable[[], Any], reached: asyncio.Event) -> None:
    """Begin ``step``, stop dead where ``reached`` is set, and open the same folder as a new daemon."""
    doing = asyncio.ensure_future(step())
    await asyncio.wait_for(reached.wait(), 20)
    abandoned = [task for task in asyncio.all_tasks() if task.get_name().startswith(("spawn ", "end "))]
    await daemon.crash([doing, *abandoned])
    await daemon.open()
