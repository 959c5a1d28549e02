"""The image ``host`` on this machine: a small folder of its own, and what of the host is shown in it.

The folder holds what a machine may change: settings, empty folders, names of programs. It lies under its digest in a
place where nothing but this module writes, beside the list of what is shown in it, so that no image that came from
elsewhere can have itself shown anything. It stays while a disk stands on it.
"""

import hashlib
import json
import os
import pwd
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from uuid import uuid4

import borough
from borough.adapters import beneath
from borough.adapters.storage.layers import remove_tree
from borough.fleet.engines import Engine
from borough.fleet.host_image import (
    EMPTY_FOLDERS,
    HOST_IMAGE,
    OWN_FILES,
    OWN_PROGRAMS,
    PROGRAM_FOLDERS,
    HostFacts,
    HostView,
    Wish,
    is_setting,
    view_of,
)
from borough.fleet.images import Image, ImageForm

_SETTINGS_OF = Path("/etc")
_LARGEST_SETTING_BYTES = 16 << 20
_FIRST_PERSON, _NOBODY = 1000, 65_534
_OPEN = stat.S_IROTH | stat.S_IXOTH
_COMMANDS: Mapping[str, str] = {
    "python3": "", "borough": " -m borough.cli.borough", "tt": " -m borough.cli.tt", "ash": " -m borough.cli.ash"
}  # fmt: skip
_PACKAGE_LISTS = ("/var/lib/dpkg/status", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/lib/apk/db/installed",
                  "/var/lib/pacman/local")  # fmt: skip
"""What changes when programs of the host do."""


class HostRoot:
    """The folders of this image, the present one and those that machines still stand on. Methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._image: Image | None = None
        self._left_out: Mapping[str, str] = {}

    @property
    def image(self) -> Image:
        """The image as it was made last; raises ``LookupError`` before that."""
        if self._image is None:
            raise LookupError("the image of this host is not made yet")
        return self._image

    @property
    def path(self) -> Path:
        """Where its folder is."""
        return self._place(self.image.digest)

    @property
    def left_out(self) -> Mapping[str, str]:
        """What Borough's own Python needs and is not shown, and why; then it cannot be run in such machines."""
        return self._left_out

    def make(self) -> Image:
        """Make the image of the host as it is now, unless it is there; raises ``OSError``."""
        view = view_of(facts(private=[self._folder]))
        self._left_out = view.left_out
        entries = {entry.name: entry for entry in _entries(view)}
        digest = _digest(view, entries)
        place = self._place(digest)
        if not place.is_dir():
            self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._build(place, view, entries)
        self._image = Image(
            name=HOST_IMAGE,
            form=ImageForm.FOLDER,
            digest=digest,
            size_bytes=sum(len(entry.content) for entry in entries.values()),
            created_at=datetime.fromtimestamp(place.stat().st_mtime, UTC),
            engines=frozenset({Engine.BUBBLEWRAP}),
            travels=False,
        )
        return self._image

    def keep_only(self, names: frozenset[str]) -> None:
        """Remove folders that are not among ``names``, and are not the present one."""
        if not self._folder.is_dir():
            return
        kept = {*names, self.path.name}
        for place in self._folder.iterdir():
            if place.is_dir() and place.name not in kept and not place.name.startswith("."):
                remove_tree(place)
                _list_beside(place).unlink(missing_ok=True)

    def _place(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-")

    def _build(self, place: Path, view: HostView, entries: "Mapping[str, _Entry]") -> None:
        draft = place.with_name(f".{place.name}-{uuid4().hex[:8]}")
        draft.mkdir(mode=0o755)
        try:
            for entry in sorted(entries.values(), key=lambda each: each.name):
                entry.put(draft)
            for entry in sorted(entries.values(), key=lambda each: each.name, reverse=True):
                entry.settle(draft)
            directory = beneath.open_directory(self._folder, [])
            try:
                # The list first: a folder that is there is whole with it.
                shown = json.dumps(dict(view.shown), indent=1, sort_keys=True)
                beneath.write_private(directory, _list_beside(place).name, shown.encode())
            finally:
                os.close(directory)
            draft.rename(place)
        finally:
            remove_tree(draft)


def shown_in(lower: Path, folder: Path | None) -> Mapping[str, str]:
    """Return what is shown in machines that stand on ``lower``: nothing, unless ``folder`` is where it was made."""
    if folder is None or lower.parent != folder.absolute().resolve():
        return {}
    told: Mapping[str, str] = json.loads(_list_beside(lower).read_text())
    return told


def facts(*, private: list[Path]) -> HostFacts:
    """Return what this host looks like; ``private`` are folders of ours that no machine may see."""
    links = {name: str(Path("/", name).readlink()) for name in PROGRAM_FOLDERS if Path("/", name).is_symlink()}
    folders = frozenset(name for name in PROGRAM_FOLDERS if name not in links and Path("/", name).is_dir())
    package = Path(borough.__file__).parent
    wished = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), package}
    people = {
        Path(each.pw_dir) for each in pwd.getpwall()
        if each.pw_uid == 0 or (each.pw_uid >= _FIRST_PERSON and each.pw_uid != _NOBODY)
    }  # fmt: skip
    hidden = {Path("/"), Path("/root"), Path("/home"), Path("/etc"), Path("/var"), *people, *private}
    return HostFacts(
        links=links,
        folders=folders,
        wishes=tuple(_wish(path) for path in sorted(wished)),
        private=frozenset(str(each.resolve()) for each in hidden),
    )


def _wish(path: Path) -> Wish:
    source = path.resolve()
    # A daemon that is root gives machines a user of their own, who is nobody here.
    readable = os.geteuid() != 0 or _is_open(source)
    return Wish(path=str(path), source=str(source), readable=readable)


class _Entry:
    """One name in the folder: a folder, a link, or a file with its content."""

    def __init__(self, name: str, mode: int, *, content: bytes = b"", to: str | None = None) -> None:
        self.name, self.mode, self.content, self.to = name, mode, content, to

    def told(self) -> list[object]:
        """Return what its share of the digest is over."""
        return [self.name, self.mode, self.to, hashlib.sha256(self.content).hexdigest()]

    def put(self, root: Path) -> None:
        """Make it; what it lies in is there."""
        path = root / self.name
        if self.to is not None:
            path.symlink_to(self.to)
        elif stat.S_ISDIR(self.mode):
            path.mkdir(mode=0o755)
        else:
            path.write_bytes(self.content)

    def settle(self, root: Path) -> None:
        """Give it its mode, when what lies in it is there."""
        if self.to is None:
            (root / self.name).chmod(stat.S_IMODE(self.mode))


def _entries(view: HostView) -> Iterator[_Entry]:
    for name, mode in EMPTY_FOLDERS.items():
        yield _folder(name, mode)
    for name, to in view.links.items():
        yield _Entry(name, stat.S_IFLNK, to=to)
    for target in (*view.shown, OWN_PROGRAMS):
        *above, _ = PurePosixPath(target).parents
        for path in (*reversed(above), PurePosixPath(target)):
            name = str(path).removeprefix("/")
            if name not in EMPTY_FOLDERS:
                yield _folder(name, 0o755)
    yield from _settings()
    for name, text in OWN_FILES.items():
        yield _Entry(name, stat.S_IFREG | 0o644, content=text.encode())
    if not view.left_out:
        for name, module in _COMMANDS.items():
            text = f'#!/bin/sh\nexec {_quoted(sys.executable)}{module} "$@"\n'
            yield _Entry(f"{OWN_PROGRAMS}/{name}".removeprefix("/"), stat.S_IFREG | 0o755, content=text.encode())


def _folder(name: str, mode: int) -> _Entry:
    return _Entry(name, stat.S_IFDIR | mode)


def _settings() -> Iterator[_Entry]:
    """Yield what of the host's settings everybody may read, and is chosen."""
    for place, folders, files in os.walk(_SETTINGS_OF):
        inside = Path(place).relative_to(_SETTINGS_OF)
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if name not in links and is_setting(str(inside / name))
            and _is_open(Path(place, name))
        )  # fmt: skip
        for name in folders:
            yield _folder(f"etc/{inside / name}", 0o755)
        for name in sorted((*files, *links)):
            if is_setting(str(inside / name)):
                yield from _setting(Path(place, name), f"etc/{inside / name}")


def _setting(path: Path, name: str) -> Iterator[_Entry]:
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode):
        yield _Entry(name, stat.S_IFLNK, to=str(path.readlink()))
    elif stat.S_ISREG(about.st_mode) and about.st_mode & 0o004 and about.st_size <= _LARGEST_SETTING_BYTES:
        yield _Entry(name, stat.S_IFREG | (about.st_mode & 0o755), content=path.read_bytes())


def _digest(view: HostView, entries: Mapping[str, _Entry]) -> str:
    """Return what stands for the image: all of its own, what is shown, and what changes when the host's programs do."""
    looks = [
        [path, about.st_size if stat.S_ISREG(about.st_mode) else 0, about.st_mtime_ns]
        for path, about in sorted(_stamps(view))
    ]
    told = {
        "entries": [entries[name].told() for name in sorted(entries)],
        "shown": dict(view.shown),
        "looks": looks,
        "borough": version("borough"),
    }
    return f"sha256:{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}"


def _stamps(view: HostView) -> Iterator[tuple[str, os.stat_result]]:
    programs = [
        f"{folder}/{name}" for folder in view.shown.values() for name in ("", "bin", "sbin", "lib", "local/bin")
    ]
    for path in (*_PACKAGE_LISTS, *programs):
        try:
            yield path, os.stat(path)  # noqa: PTH116 - an optional slash at the end
        except FileNotFoundError:
            continue


def _is_open(folder: Path) -> bool:
    """Tell whether everybody may read a folder and what lies in it."""
    return folder.stat().st_mode & _OPEN == _OPEN


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def _list_beside(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")
