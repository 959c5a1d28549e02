"""Running the tools of this room; what they say becomes our errors."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from borough.adapters import process
from borough.core.errors import Unavailable

_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_WITHIN_S = 30.0


async def run(argv: Sequence[str], *, stdin: str = "") -> process.Finished:
    """Run a tool to its end; raises ``Unavailable`` when it is not here."""
    return await asyncio.to_thread(
        process.run, argv, env=_ENVIRONMENT, stdin=stdin.encode(), timeout_s=_WITHIN_S
    )  # fmt: skip


async def must(argv: Sequence[str], *, stdin: str = "") -> bytes:
    """Run a tool that has to succeed, and return what it printed.

    Raises:
        Unavailable: it failed (``network_failed``), with its own words.
    """
    finished = await run(argv, stdin=stdin)
    if finished.code != 0:
        raise failed(" ".join(argv), finished.words)
    return finished.stdout


async def ip(lines: Sequence[str], *, namespace: str | None = None) -> None:
    """Give ``ip`` a batch of lines, in a network namespace if one is named."""
    where = [] if namespace is None else ["-n", namespace]
    await must(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n")


async def links(*, namespace: str | None = None, name: str | None = None) -> list[Mapping[str, Any]]:
    """Return the devices there are, or the one of that name, as ``ip`` tells them."""
    where = [] if namespace is None else ["-n", namespace]
    which = [] if name is None else ["dev", name]
    finished = await run(["ip", *where, "-d", "-j", "link", "show", *which])
    if finished.code != 0:
        if name is not None and b"does not exist" in finished.stderr:
            return []
        raise failed("ip link show", finished.words)
    # In old versions, what does not match is an empty object.
    return [link for link in json.loads(finished.stdout or b"[]") if link]


def failed(what: str, said: str) -> Unavailable:
    """Return the error for a tool that did not do what it was asked."""
    return Unavailable(
        f"the host's network could not be changed: {said}",
        code="network_failed",
        reason=f"said by: {what}",
        resolution="see that nft and ip of iproute2 are installed, and that this program may administer the network",
    )
