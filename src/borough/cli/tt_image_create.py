"""``tt image create``: images made on this machine, from recipes."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from borough.cli.commands import command
from borough.cli.errors import FAILED, OK
from borough.cli.output import Output, output, say
from borough.core.errors import BoroughError
from borough.fleet.engines import parse_engine
from borough.fleet.images import EVERY_RECIPE, Image, Recipe, chosen
from borough.fleet.storage import parse_storage

if TYPE_CHECKING:
    from borough.adapters.images.making import ImageMaker
    from borough.bootstrap.images import ImagePlace

_TELL_EVERY_S: Final = 2.0
_MIB: Final = 1 << 20


@command("create", example="tt image create local-vm\ntt image create all --engine docker")
@click.argument("name", metavar="NAME|all")
@click.option("--image-dir", metavar="DIR", help="Where to.  [default: /home/ttstack/images, or in your state folder]")
@click.option("--engine", metavar="ENGINE", help="With all: only the recipes of one engine.")
@click.option("--storage", default="file", show_default=True, help="file (also: raw) or zvol (also: zfs).")
@click.option(
    "--packages",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Debian packages for the local recipes, where none can be fetched.",
)
@click.option("--suite", metavar="SUITE", help="Make local-root a small Debian of that suite, as in trixie.")
@click.pass_context
def create(
    context: click.Context,
    *,
    name: str,
    image_dir: str | None,
    engine: str | None,
    storage: str,
    packages: Path | None,
    suite: str | None,
) -> None:
    """Make an image from its recipe, on this machine; one that is there already is left as it is.

    A host daemon with the same --image-dir has it at once. With all, a recipe that fails is told and keeps none of the
    others from being made.
    """
    from borough.bootstrap.images import ImagePlace
    from borough.config.fleet import container_socket, default_folder

    choice = chosen(name, engine=None if engine is None else parse_engine(engine), system=sys.platform)
    place = ImagePlace(
        image_dir=image_dir or str(default_folder("images", os.environ)),
        storage=parse_storage(storage),
        container_socket=container_socket(os.environ),
        packages=None if packages is None else packages.absolute(),
        suite=suite,
    )
    for skipped, why in choice.skipped.items():
        _tell(f"{skipped} is skipped: {why}")
    made = asyncio.run(_all_made(place, choice.wanted, alone=name != EVERY_RECIPE))
    made += [{"name": skipped, "state": "skipped", "reason": why} for skipped, why in choice.skipped.items()]
    output().show({"images": made, "count": len(made)}, lambda: _print_made(output(), made, place.image_dir))
    context.exit(FAILED if any(each["state"] == "failed" for each in made) else OK)


async def _all_made(place: "ImagePlace", recipes: tuple[Recipe, ...], *, alone: bool) -> list[dict[str, Any]]:
    from borough.bootstrap.images import image_maker

    made = []
    async with image_maker(place) as maker:
        for each in recipes:
            try:
                made.append(await _made(maker, each))
            except BoroughError as error:
                if alone:
                    raise
                reason = error.message if error.reason is None else f"{error.message}: {error.reason}"
                _tell(f"warning: {each.name} could not be made: {reason}")
                made.append({"name": each.name, "engine": each.engine.value, "state": "failed", "reason": reason})
    return made


async def _made(maker: "ImageMaker", recipe: Recipe) -> dict[str, Any]:
    told: dict[str, Any] = {"name": recipe.name, "engine": recipe.engine.value}
    if await maker.has(recipe):
        return {**told, "state": "there", **_about(await maker.make(recipe, progress=_Progress(recipe.name)))}
    _tell(f"{recipe.name}: {recipe.description}")
    started = time.monotonic()
    image = await maker.make(recipe, progress=_Progress(recipe.name))
    _tell(f"{recipe.name} is made, in {time.monotonic() - started:.0f} s")
    return {**told, "state": "made", **_about(image)}


def _about(image: Image | None) -> dict[str, Any]:
    """Return what is known of an image; nothing of one that a container runtime keeps."""
    if image is None:
        return {}
    return {"form": image.form.value, "digest": image.digest, "size_bytes": image.size_bytes}


class _Progress:
    """Says how far a recipe is, not oftener than somebody reads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = 0.0
        self._what = ""

    def __call__(self, what: str, done: int, of: int | None) -> None:
        now = time.monotonic()
        if what == self._what and now < self._next and done != of:
            return
        self._next, self._what = now + _TELL_EVERY_S, what
        amount = f" of {of // _MIB}" if of else ""
        far = f": {done // _MIB}{amount} MiB" if done else ""
        if what != self._name:
            _tell(f"{self._name}: {what}{far}")


def _tell(text: str) -> None:
    say(f"[image] {text}")


def _print_made(out: Output, made: list[dict[str, Any]], image_dir: str) -> None:
    rows = [
        (each["name"], each["state"], f"{each['size_bytes'] // _MIB} MiB" if "size_bytes" in each else "")
        for each in made
    ]
    out.table(("image", "state", "size"), rows, empty="no recipe makes sense here")
    if any("digest" in each for each in made):
        say(f"[image] they are in {image_dir}")
