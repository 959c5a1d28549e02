"""Debian packages, fetched by this machine's apt or given as files, and unpacked; nothing is installed."""

from collections.abc import Sequence
from pathlib import Path

from borough.adapters.images.tools import image_failed, run

_WITHOUT_APT = (
    "see that apt reaches its mirror and knows it (apt-get update), or name a folder with the packages: --packages DIR"
)


def depends_argv(package: str) -> list[str]:
    """Ask what a package really is, where it is a name for the newest of its kind."""
    return ["apt-cache", "depends", "--important", package]


def download_argv(names: Sequence[str]) -> list[str]:
    """Fetch packages as files into the working folder."""
    return ["apt-get", "download", "-q", *names]


def unpack_argv(archive: Path, root: Path) -> list[str]:
    """Unpack a package's files."""
    return ["dpkg-deb", "-x", str(archive), str(root)]


def newest(meta: str, prefix: str) -> str:
    """Return the package that ``meta`` stands for: the first it depends on that begins with ``prefix``."""
    for word in run(depends_argv(meta), otherwise=_WITHOUT_APT).decode().split():
        if word.startswith(prefix) and word != meta:
            return word
    raise image_failed(f"{meta} depends on no {prefix}…", " ".join(depends_argv(meta)), otherwise=_WITHOUT_APT)


def unpacked(names: Sequence[str], folder: Path, *, given: Path | None = None) -> Path:
    """Return a folder with the packages' files.

    With ``given``, a folder with packages as files, nothing is fetched: all that lies there is unpacked.
    """
    archives, root = folder / "archives", folder / "packages"
    root.mkdir()
    if given is None:
        archives.mkdir()
        run(download_argv(names), cwd=archives, otherwise=_WITHOUT_APT)
    for archive in sorted((given or archives).glob("*.deb")):
        run(unpack_argv(archive, root))
    return root
