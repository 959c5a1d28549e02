"""Firecracker's API socket."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from borough.adapters.engines.firecracker.bodies import API_SOCKET, Request
from borough.adapters.engines.refusals import failed
from borough.core.errors import Unavailable

ANSWER_WITHIN_S = 20.0
SAVES_WITHIN_S = 600.0
"""A state with memory is written before it is answered."""
_REFUSED = 400


class SocketLost(Unavailable):
    """Nobody listens at the machine's socket."""

    default_code = "engine_failed"


async def ask(room: Path, request: Request, *, within_s: float = ANSWER_WITHIN_S) -> None:
    """Ask the Firecracker that runs in ``room``.

    Raises:
        SocketLost: nobody listens there.
        Unavailable: it refused, with its own words, or did not answer (``engine_failed``).
    """
    await _send(room, request.method, request.path, request.body, within_s)


async def told(room: Path) -> Mapping[str, Any]:
    """Return what it says of itself; raises as ``ask`` does."""
    return await _send(room, "GET", "/", None, ANSWER_WITHIN_S)


async def _send(
    room: Path, method: str, path: str, body: Mapping[str, Any] | None, within_s: float
) -> Mapping[str, Any]:
    try:
        directory = os.open(room, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise _lost(failure) from failure
    # By its folder, as the path of a socket may have 107 bytes at most.
    connector = aiohttp.UnixConnector(path=f"/proc/self/fd/{directory}/{API_SOCKET}")
    timeout = aiohttp.ClientTimeout(total=within_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            content = await response.read()
            answer = json.loads(content) if content.strip() else {}
            if response.status >= _REFUSED:
                raise failed(f"Firecracker refused {method} {path}: {answer.get('fault_message', response.status)}")
            return answer if isinstance(answer, dict) else {}
    except aiohttp.ClientConnectorError as failure:
        raise _lost(failure) from failure
    except TimeoutError:
        raise failed(f"Firecracker did not answer {method} {path} within {within_s:g} s") from None
    except (aiohttp.ClientError, ValueError) as failure:
        raise failed(f"Firecracker did not answer {method} {path}: {failure}") from failure
    finally:
        os.close(directory)


def _lost(failure: OSError) -> SocketLost:
    return SocketLost(
        f"Firecracker cannot be spoken to: {failure}",
        resolution="stop the machine by force and start it again; its disk stays",
    )
