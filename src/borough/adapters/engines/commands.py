"""Commands of a host's own tools, run to their end. FreeBSD's engines are nothing else, so what runs them is given."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from borough.adapters import process
from borough.adapters.engines.refusals import failed
from borough.adapters.process import Finished

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
WITHIN_S = 120.0


class Runner(Protocol):
    """Runs a command to its end."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"") -> Finished:
        """Return how it ended; raises ``Unavailable`` when it is not here or does not end."""


class HostRunner:
    """Runs commands on this host."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"") -> Finished:
        """Return how it ended; raises ``Unavailable`` when it is not here or does not end."""
        return await asyncio.to_thread(process.run, argv, env=ENVIRONMENT, stdin=stdin, timeout_s=WITHIN_S)


async def must(runner: Runner, argv: Sequence[str], *, stdin: bytes = b"") -> bytes:
    """Return what a command printed that has to succeed; raises ``Unavailable`` (``engine_failed``) with its words."""
    finished = await runner.run(argv, stdin=stdin)
    if finished.code != 0:
        raise failed(f"{argv[0]} failed: {finished.words}")
    return finished.stdout
