"""This machine as the first host of a town's fleet, in the server's own process."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import structlog

from borough.adapters.images.making import ImageMaker
from borough.bootstrap.host import OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.core.errors import BoroughError
from borough.fleet.engines import Engine
from borough.fleet.images import recipe

log = structlog.get_logger(__name__)

FIRST_IMAGE: Final = "local-root"
FIRST_IMAGE_S: Final = 5.0
"""How long the fleet waits for its first image. Where it has to be fetched, it comes when it comes."""

Warn = Callable[[str], None]


async def open_first_host(settings: HostSettings, undo: AsyncExitStack, *, warn: Warn) -> OpenHost | None:
    """Open this machine as a host, to be closed by ``undo``; ``None``, and told, where it can be none.

    Without it the fleet is still good for other hosts.
    """
    try:
        host = await undo.enter_async_context(open_host(settings))
    except BoroughError as error:
        warn(f"this machine is no host: {error.message}")
        return None
    if not settings.change_network:
        log.info("fleet.network", told="this machine's network is left alone; as root, --change-network lets it change")
    offers = {offer.engine for offer in (await host.daemon.report()).offers}
    if not offers:
        warn("this machine has no engine: 'borough doctor' says what is missing")
    elif Engine.BUBBLEWRAP in offers and not any(image.travels for image in await host.daemon.images()):
        making = asyncio.create_task(_make_image(host, settings, warn), name="first image")
        undo.push_async_callback(_cancel, making)
        await asyncio.wait({making}, timeout=FIRST_IMAGE_S)
    return host


async def _make_image(host: OpenHost, settings: HostSettings, warn: Warn) -> None:
    """Make a small image, so that there is something to start from."""
    maker = ImageMaker(host.disks, scratch=settings.data_dir / "making", storage=settings.storage)
    try:
        made = await maker.make(recipe(FIRST_IMAGE), progress=lambda *_told: None)
    except (BoroughError, OSError) as error:
        warn(f"there is no image yet, and {FIRST_IMAGE} could not be made: {error}")
    else:
        log.info("image.made", image=FIRST_IMAGE, digest=None if made is None else made.digest)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
