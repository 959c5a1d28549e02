"""The loop that every controller runs in."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from borough.core.errors import BoroughError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Something to do again and again."""

    name: str
    every: timedelta
    act: Callable[[], Awaitable[object]]
    first_after: timedelta = timedelta()


async def run(controller: Controller) -> None:
    """Act for ever. A pass that fails is told and followed by the next: all state is in the stores."""
    await asyncio.sleep(controller.first_after.total_seconds())
    while True:
        try:
            await controller.act()
        except BoroughError as error:
            log.warning("controller.failed", controller=controller.name, error=error.message, code=error.code)
        except Exception:
            log.exception("controller.broken", controller=controller.name)
        await asyncio.sleep(controller.every.total_seconds())
