"""The images of the fleet: where each is, and from host to host."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from borough.core.errors import BoroughError, NotFound, Unavailable
from borough.fleet.fitness import OWN_STOCK
from borough.fleet.hosts import Host, HostState
from borough.fleet.images import Image
from borough.fleet.ports.directory import Directory
from borough.fleet.ports.fleet import Fleet, ImageStock
from borough.fleet.ports.host_agent import HostAgent
from borough.fleet.services.turns import Turns
from borough.fleet.storage import Storage

STALLED_AFTER_S = 60.0
"""How long a transfer may stand still; the host that receives it may take so long to put away what came last."""
_TELL_EVERY_BYTES = 4 << 20
_MIB = 1 << 20

Told = Callable[[str], None]
"""Hears how far something is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedImage:
    """An image on a host, as the host told last."""

    name: str
    host_id: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class _Source:
    """Who has an image."""

    label: str
    images: Callable[[], Awaitable[Sequence[Image]]]
    content: Callable[[str], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """An image that is to be brought to a host."""

    name: str
    to: str
    agent: HostAgent
    there: Image | None
    """What the host has by that name."""
    told: Told


class ImageService:
    """The catalogue, from what hosts said last, so that none has to be asked; and the way from host to host."""

    def __init__(
        self, fleet: Fleet, directory: Directory, stock: ImageStock, *, stalled_after_s: float = STALLED_AFTER_S
    ) -> None:
        """``stock`` are the controller's own images, which hosts that keep images as files can have."""
        self._fleet = fleet
        self._directory = directory
        self._stock = stock
        self._stalled_after_s = stalled_after_s
        self._turns = Turns()

    async def all(self) -> tuple[HostedImage, ...]:
        """Return every image of every host that is there, by name."""
        found = [
            HostedImage(name=name, host_id=host.id, digest=host.report.image_digests.get(name))
            for host in await self._fleet.hosts()
            if host.state is HostState.ONLINE
            for name in host.report.images
        ]
        return tuple(sorted(found, key=lambda each: (each.name, each.host_id)))

    async def stock(self) -> frozenset[str]:
        """Return the names of the controller's own images."""
        return frozenset(image.name for image in await self._stock.images())

    async def copy(self, name: str, *, to: str, told: Told | None = None) -> Image:
        """Bring an image from the controller's stock, or a host that has it, to another that stores images alike; what
        arrives is compared with its digest. Several that want the same wait for one.

        Raises:
            NotFound: nobody has it (``image_not_found``), or there is no such host (``host_not_found``).
            Unavailable: it could not be brought (``image_not_brought``), with what each of both hosts said.
        """
        target = await self._fleet.host(to)
        async with self._turns.of(f"{to} {name}"):
            agent = self._directory.agent(target)
            there = next((image for image in await agent.images() if image.name == name), None)
            errand = _Errand(name=name, to=to, agent=agent, there=there, told=told or _nobody)
            sources = await self._sources(name, target)
            if not sources:
                if there is not None:
                    return there
                raise NotFound(
                    f"neither the controller nor a host that stores images as {to} does has an image {name[:80]!r}",
                    code="image_not_found",
                    resolution="list them: tt image list; make one: tt image create",
                )
            failures = []
            for source in sources:
                try:
                    return await self._bring(errand, source)
                except (BoroughError, TimeoutError) as error:
                    why = str(error) or f"nothing came for {self._stalled_after_s:g} s"
                    reason = error.reason if isinstance(error, BoroughError) else None
                    failures.append(f"from {source.label}: {why}" + (f": {reason}" if reason else ""))
            raise Unavailable(
                f"the image {name} could not be brought from {', '.join(each.label for each in sources)} to {to}",
                code="image_not_brought",
                reason="; ".join(failures),
                resolution=f"see both hosts, or make it on {to}: tt image create",
            )

    async def _bring(self, errand: _Errand, source: _Source) -> Image:
        image = next((each for each in await source.images() if each.name == errand.name), None)
        if image is None:
            raise NotFound(f"{source.label} has no image {errand.name[:80]!r} any more", code="image_not_found")
        if errand.there is not None and errand.there.digest == image.digest:
            return errand.there
        flow = _Flow(f"image {image.name} from {source.label} to {errand.to}", image.size_bytes, errand.told)
        try:
            async with asyncio.timeout(self._stalled_after_s) as limit:
                content = flow.passed(source.content(image.name), limit, self._stalled_after_s)
                return await errand.agent.put_image(image, content)
        except BoroughError as error:
            # Whoever receives can only say that it did not get all of it; why, says who sent.
            raise (flow.failure or error) from error

    async def _sources(self, name: str, target: Host) -> list[_Source]:
        """Return who has it and stores it as the target would: the controller, then hosts, the oldest first."""
        found = []
        if target.report.storage is Storage.FILE and name in await self.stock():
            found.append(_Source(OWN_STOCK, self._stock.images, self._stock.content))
        for host in await self._hosts_with(name, target):
            agent = self._directory.agent(host)
            found.append(_Source(host.id, agent.images, agent.image_content))
        return found

    async def _hosts_with(self, name: str, target: Host) -> list[Host]:
        return [
            host
            for host in await self._fleet.hosts()
            if host.state is HostState.ONLINE
            and host.id != target.id
            and host.report.storage is target.report.storage
            and name in host.report.image_digests
            and name not in host.report.own_images
        ]


class _Flow:
    """Content on its way, which may take as long as it likes while it moves."""

    def __init__(self, what: str, size_bytes: int, told: Told) -> None:
        self._what, self._size_bytes, self._told = what, size_bytes, told
        self.failure: BoroughError | None = None
        """Why it stopped coming."""

    async def passed(
        self, content: AsyncIterator[bytes], limit: asyncio.Timeout, stalled_after_s: float
    ) -> AsyncIterator[bytes]:
        """Yield ``content``, moving ``limit`` on with each part."""
        loop = asyncio.get_running_loop()
        came, tell_at = 0, 0
        try:
            async for part in content:
                came += len(part)
                limit.reschedule(loop.time() + stalled_after_s)
                if came >= tell_at:
                    tell_at = came + _TELL_EVERY_BYTES
                    self._told(f"{self._what}: {came // _MIB} of {-(-self._size_bytes // _MIB)} MiB")
                yield part
        except BoroughError as error:
            self.failure = error
            raise


def _nobody(text: str) -> None:
    del text
