"""Images: what machines start from, known by what is in them, and the recipes that make them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from borough.core.errors import Invalid, NotFound
from borough.fleet.engines import Engine


class ImageForm(StrEnum):
    """What an image is made of."""

    QCOW2 = "qcow2"
    RAW = "raw"
    FOLDER = "folder"
    """A root folder, or what Firecracker takes: a kernel beside a root file system."""
    REFERENCE = "reference"
    """A name in a container runtime's own store."""
    VOLUME = "volume"
    """A ZFS volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image on a host. ``digest`` is over everything in it, so that two hosts mean the same by one name."""

    name: str
    form: ImageForm
    digest: str
    size_bytes: int
    created_at: datetime
    engines: frozenset[Engine] = frozenset()
    travels: bool = True
    """Whether it can be brought to another host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Something that a recipe fetches; without a checksum it is compared with the list that is published beside it."""

    url: str
    sha256: str | None = None
    sha512: str | None = None
    sums_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an image is made on a host."""

    name: str
    engine: Engine
    description: str
    tag: str | None = None
    """For containers: what is pulled and then known by the recipe's name."""
    downloads: Mapping[str, Download] = field(default_factory=dict)
    local: bool = False
    """Made from packages of this machine, without the internet."""


def _container(name: str, tag: str, description: str) -> Recipe:
    return Recipe(name=name, engine=Engine.DOCKER, description=description, tag=tag)


def _cloud(name: str, description: str, url: str, sums_url: str) -> Recipe:
    disk = Download(url=url, sums_url=sums_url)
    return Recipe(name=name, engine=Engine.QEMU, description=description, downloads={"disk": disk})


_ALPINE = "https://dl-cdn.alpinelinux.org/alpine/v3.21/releases"
_DEBIAN = "https://cloud.debian.org/images/cloud/trixie/daily/latest"
_UBUNTU = "https://cloud-images.ubuntu.com/noble/current"
_FIRECRACKER = "https://s3.amazonaws.com/spec.ccfc.min/img/quickstart_guide/x86_64/kernels/vmlinux.bin"
_FREEBSD = "https://download.freebsd.org/releases/amd64"

_RECIPES = (
    _container("alpine", "alpine:3.21", "Alpine Linux 3.21"),
    _container("debian", "debian:trixie-slim", "Debian 13, slim"),
    _container("ubuntu", "ubuntu:24.04", "Ubuntu 24.04"),
    _container("rockylinux", "rockylinux:9-minimal", "Rocky Linux 9, minimal"),
    _container("nginx", "nginx:alpine", "nginx on Alpine"),
    _container("redis", "redis:7-alpine", "Redis 7 on Alpine"),
    _container("postgres", "postgres:17-alpine", "PostgreSQL 17 on Alpine"),
    Recipe(
        name="fc-alpine",
        engine=Engine.FIRECRACKER,
        description="Alpine Linux 3.21 with a kernel for Firecracker",
        downloads={
            "kernel": Download(url=_FIRECRACKER),
            "root": Download(
                url=f"{_ALPINE}/x86_64/alpine-minirootfs-3.21.3-x86_64.tar.gz",
                sums_url=f"{_ALPINE}/x86_64/alpine-minirootfs-3.21.3-x86_64.tar.gz.sha256",
            ),
        },
    ),
    _cloud(
        "alpine-cloud",
        "Alpine Linux 3.21 for clouds",
        f"{_ALPINE}/cloud/nocloud_alpine-3.21.7-x86_64-bios-cloudinit-r0.qcow2",
        f"{_ALPINE}/cloud/nocloud_alpine-3.21.7-x86_64-bios-cloudinit-r0.qcow2.sha512",
    ),
    _cloud(
        "debian-cloud",
        "Debian 13, generic, for clouds",
        f"{_DEBIAN}/debian-13-generic-amd64-daily.qcow2",
        f"{_DEBIAN}/SHA512SUMS",
    ),
    _cloud(
        "ubuntu-cloud",
        "Ubuntu 24.04 for clouds",
        f"{_UBUNTU}/noble-server-cloudimg-amd64.img",
        f"{_UBUNTU}/SHA256SUMS",
    ),
    Recipe(
        name="freebsd-base",
        engine=Engine.JAIL,
        description="FreeBSD's base system",
        downloads={
            "base": Download(url=f"{_FREEBSD}/{{release}}/base.txz", sums_url=f"{_FREEBSD}/{{release}}/MANIFEST")
        },
    ),
    Recipe(
        name="local-root",
        engine=Engine.BUBBLEWRAP,
        description="a small root folder from this machine's packages",
        local=True,
    ),
    Recipe(
        name="local-vm",
        engine=Engine.QEMU,
        description="a tiny machine that boots and answers SSH, from this machine's packages",
        local=True,
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _RECIPES})
"""By name, in the order in which they are listed."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a download has to be: an algorithm of ``hashlib`` and what it gives, in lower-case hexadecimal."""

    algorithm: str
    value: str


_ALGORITHMS = {64: "sha256", 128: "sha512"}


def checksum_in(text: str, file_name: str) -> Checksum | None:
    """Return a file's checksum out of a list that is published beside it, or ``None`` when it is not there.

    Lists of ``sha256sum`` and BSD's, FreeBSD's ``MANIFEST``, and files that hold nothing but the checksum are known.
    """
    for line in text.splitlines():
        words = line.replace("(", " ").replace(")", " ").replace("=", " ").split()
        names = {word.lstrip("*").rpartition("/")[2] for word in words}
        values = [word.lower() for word in words if len(word) in _ALGORITHMS and _is_hexadecimal(word)]
        if values and (file_name in names or len(words) == 1):
            return Checksum(_ALGORITHMS[len(values[0])], values[0])
    return None


def checksum_given(download: Download) -> Checksum | None:
    """Return the checksum that a recipe itself knows."""
    if download.sha256 is not None:
        return Checksum("sha256", download.sha256)
    return None if download.sha512 is None else Checksum("sha512", download.sha512)


def _is_hexadecimal(word: str) -> bool:
    return all(letter in "0123456789abcdefABCDEF" for letter in word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The recipes that are meant, and those that make no sense on this system, with why."""

    wanted: tuple[Recipe, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


EVERY_RECIPE = "all"


def chosen(what: str, *, engine: Engine | None, system: str) -> Choice:
    """Return the recipe of that name, or with ``all`` every one (of ``engine``) that makes sense on ``system``.

    Raises:
        NotFound: there is none of that name (``recipe_not_found``), or none of that engine.
        Invalid: an engine was named beside a recipe (``engine_without_all``).
    """
    if what != EVERY_RECIPE:
        if engine is not None:
            raise Invalid(
                f"{what[:80]} has its engine already",
                code="engine_without_all",
                resolution=f"leave --engine out, or make every recipe of it: tt image create {EVERY_RECIPE}",
            )
        return Choice(wanted=(recipe(what),))
    of_engine = [each for each in RECIPES.values() if engine in (None, each.engine)]
    if not of_engine:
        raise NotFound(
            f"there is no recipe for engine={engine}", code="recipe_not_found", resolution="list them: tt image recipes"
        )
    skipped = {each.name: why for each in of_engine if (why := _senseless(each, system)) is not None}
    return Choice(wanted=tuple(each for each in of_engine if each.name not in skipped), skipped=skipped)


def _senseless(made: Recipe, system: str) -> str | None:
    on_freebsd = system.startswith("freebsd")
    if made.engine is Engine.JAIL and not on_freebsd:
        return "jails are part of FreeBSD"
    if made.engine is Engine.FIRECRACKER and on_freebsd:
        return "Firecracker runs on Linux"
    return None


def recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        NotFound: there is none of that name (``recipe_not_found``).
    """
    if name not in RECIPES:
        raise NotFound(
            f"there is no recipe {name[:80]!r}", code="recipe_not_found", resolution="list them: tt image recipes"
        )
    return RECIPES[name]
