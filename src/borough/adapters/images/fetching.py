"""Downloads, compared with their checksums before anything is made of them."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import aiohttp

from borough.core.errors import Conflict, Unavailable
from borough.fleet.images import Checksum, Download, checksum_given, checksum_in

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how many bytes of it are, and of how many if that is known."""

_CHUNK_BYTES = 1 << 18
_MOST_SUMS_BYTES = 4 << 20
MOST_BYTES = 16 << 30
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=20.0, sock_read=60.0)


async def fetch(download: Download, into: Path, *, progress: Progress, most_bytes: int = MOST_BYTES) -> Checksum:
    """Fetch a file and return its checksum; it is there whole and proven, or not at all.

    Raises:
        Unavailable: it cannot be fetched (``download_failed``).
        Conflict: it is not what was published (``digest_mismatch``), or larger than allowed (``too_large``).
    """
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            wanted = await _wanted(session, download)
            algorithm = "sha256" if wanted is None else wanted.algorithm
            value = await _stream(session, download.url, into, algorithm, progress=progress, most_bytes=most_bytes)
        found = Checksum(algorithm, value)
        _check(download.url, found, wanted)
    except (aiohttp.ClientError, TimeoutError) as failure:
        await asyncio.to_thread(into.unlink, missing_ok=True)
        raise _failed(download.url, str(failure) or type(failure).__name__) from failure
    except BaseException:
        await asyncio.to_thread(into.unlink, missing_ok=True)
        raise
    return found


def _check(url: str, found: Checksum, wanted: Checksum | None) -> None:
    if wanted is not None and found != wanted:
        raise Conflict(
            f"what came from {url} is not what was published",
            code="digest_mismatch",
            reason=f"its {wanted.algorithm} should be {wanted.value} and is {found.value}",
            resolution="try again later: a rolling image may just have been replaced",
        )


async def _wanted(session: aiohttp.ClientSession, download: Download) -> Checksum | None:
    given = checksum_given(download)
    if given is not None or download.sums_url is None:
        return given
    async with session.get(download.sums_url, raise_for_status=True) as response:
        text = (await response.content.read(_MOST_SUMS_BYTES)).decode(errors="replace")
    found = checksum_in(text, download.url.rpartition("/")[2])
    if found is None:
        raise _failed(download.url, f"{download.sums_url} does not name it, so it cannot be proven")
    return found


async def _stream(
    session: aiohttp.ClientSession, url: str, into: Path, algorithm: str, *, progress: Progress, most_bytes: int
) -> str:
    hashed = hashlib.new(algorithm)
    came = 0
    async with session.get(url, raise_for_status=True) as response:
        with into.open("wb") as file:
            async for part in response.content.iter_chunked(_CHUNK_BYTES):
                came += len(part)
                if came > most_bytes:
                    raise Conflict(
                        f"{url} is larger than {most_bytes} bytes", code="too_large", resolution="choose another image"
                    )
                hashed.update(part)
                file.write(part)
                progress(url, came, response.content_length)
    return hashed.hexdigest()


def _failed(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"{url} could not be fetched",
        code="download_failed",
        reason=why,
        resolution="see that this host reaches it; local-root and local-vm need no internet",
    )
