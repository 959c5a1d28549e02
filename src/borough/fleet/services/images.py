"""The images of the fleet: where each is, and from host to host."""

from dataclasses import dataclass

from borough.core.errors import NotFound
from borough.fleet.hosts import HostState
from borough.fleet.images import Image
from borough.fleet.ports.directory import Directory
from borough.fleet.ports.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedImage:
    """An image on a host, as the host told last."""

    name: str
    host_id: str
    digest: str | None


class ImageService:
    """The catalogue, from what hosts said last, so that none has to be asked."""

    def __init__(self, fleet: Fleet, directory: Directory) -> None:
        self._fleet = fleet
        self._directory = directory

    async def all(self) -> tuple[HostedImage, ...]:
        """Return every image of every host that is there, by name."""
        found = [
            HostedImage(name=name, host_id=host.id, digest=host.report.image_digests.get(name))
            for host in await self._fleet.hosts()
            if host.state is HostState.ONLINE
            for name in host.report.images
        ]
        return tuple(sorted(found, key=lambda each: (each.name, each.host_id)))

    async def copy(self, name: str, *, to: str) -> Image:
        """Bring an image from a host that has it to another; what arrives is compared with its digest.

        Raises:
            NotFound: no host has it (``image_not_found``), or there is no such host (``host_not_found``).
            Unavailable: one of the two does not answer.
        """
        target = self._directory.agent(await self._fleet.host(to))
        there = {image.name: image for image in await target.images()}
        source_id = next((each.host_id for each in await self.all() if each.name == name and each.host_id != to), None)
        if source_id is None:
            if name in there:
                return there[name]
            raise NotFound(f"no host has an image {name[:80]!r}", code="image_not_found", resolution="tt image list")
        source = self._directory.agent(await self._fleet.host(source_id))
        image = next((each for each in await source.images() if each.name == name), None)
        if image is None:
            raise NotFound(f"{source_id} has no image {name[:80]!r} any more", code="image_not_found")
        if name in there and there[name].digest == image.digest:
            return there[name]
        return await target.put_image(image, source.image_content(name))
