"""The images of a container runtime: its own store, which fetches from registries."""

import json
from collections.abc import Callable

from borough.adapters.engines.docker.client import EngineApi, failed
from borough.core.errors import Invalid, NotFound, Unavailable

Progress = Callable[[str, int, int | None], None]
"""Told what is being fetched, how many bytes of it are there, and of how many."""


class RuntimeImages:
    """The images of one runtime."""

    def __init__(self, api: EngineApi) -> None:
        self._api = api

    async def has(self, name: str) -> bool:
        """Tell whether the runtime has an image of that name; raises ``Unavailable`` (``engine_failed``)."""
        try:
            await self._api.ask("GET", f"/images/{name}/json")
        except NotFound:
            return False
        return True

    async def fetch(self, reference: str, name: str, *, progress: Progress) -> None:
        """Fetch an image from its registry and give it a name; ``progress`` hears of every layer.

        Raises:
            Invalid: it cannot be fetched (``image_missing``).
            Unavailable: the runtime does not answer (``engine_failed``).
        """
        await self.pull(reference, progress)
        named, _, tag = name.partition(":")
        await self._api.ask("POST", f"/images/{reference}/tag", query={"repo": named, "tag": tag or "latest"})

    async def pull(self, image: str, progress: Progress | None = None) -> None:
        """Fetch an image from its registry; without a tag or digest, ``latest`` is meant.

        Raises:
            Invalid: it cannot be fetched (``image_missing``).
        """
        named = "@" in image or ":" in image.rpartition("/")[2]
        query = {"fromImage": image if named else f"{image}:latest"}
        layers: dict[str, tuple[int, int]] = {}
        try:
            async with self._api.stream("POST", "/images/create", query=query) as response:
                async for line in response.content:
                    told = json.loads(line)
                    if "error" in told:
                        raise failed(str(told["error"]))
                    how_far = told.get("progressDetail") or {}
                    if progress is not None and how_far.get("total"):
                        layers[told.get("id", "")] = (how_far.get("current", 0), how_far["total"])
                        done, of = (sum(each) for each in zip(*layers.values(), strict=True))
                        progress(image, done, of)
        except (NotFound, Unavailable) as failure:
            raise Invalid(
                f"there is no image {image} on this host, and it cannot be fetched",
                code="image_missing",
                reason=failure.message,
                resolution="name an image that this host has, or one that a registry has and this host can reach",
            ) from failure
