"""What every tier uses: waiting for conditions, and skips that are failures where everything is required."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import pytest

# Hundreds of programs are started here; where compiled modules are not kept, each compiles all that it imports anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = 60.0) -> None:
    """Return as soon as ``holds`` does; fail after ``within_s``."""
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.01)


def need(present: object, what: str, install: str) -> None:
    """Skip by name, with the command that would install it, what this machine lacks.

    With ``BOROUGH_REQUIRE=all`` the lack is a failure.
    """
    if present:
        return
    told = f"{what} is not here; install it with: {install}"
    if os.environ.get("BOROUGH_REQUIRE") == "all":
        pytest.fail(told)
    pytest.skip(told)
