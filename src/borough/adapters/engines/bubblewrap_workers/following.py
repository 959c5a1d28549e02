"""Which paths a program is made of: its links, what a script names as its interpreter, the folder it lives in."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ELOOP

from borough.adapters.engines.bubblewrap.view import within

_MOST_LINKS = 40
_MOST_STEPS = 8
_FIRST_LINE_BYTES = 512
_LEAST_DEPTH = 2
_SCRIPTS = (".py", ".js", ".mjs", ".cjs", ".ts", ".sh", ".rb", ".pl")


@dataclass(slots=True, kw_only=True)
class Followed:
    """Real paths, and the links by which they are reached."""

    paths: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)


def follow(path: str, *, never: Sequence[str] = ()) -> tuple[str | None, list[tuple[str, str]]]:
    """Return where ``path`` really is, and each link on the way with its target.

    ``None`` where a link lies in one of ``never``: whoever may write there would choose what it leads to.

    Raises:
        OSError: the links go round in circles.
    """
    links: list[tuple[str, str]] = []
    done, left = "/", path.split("/")
    while left:
        word = left.pop(0)
        if word in ("", "."):
            continue
        if word == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, word)
        if not os.path.islink(here):
            done = here
            continue
        if any(within(here, place) for place in never):
            return None, []
        if len(links) == _MOST_LINKS:
            raise OSError(ELOOP, "too many links", path)
        target = os.readlink(here)
        links.append((here, target))
        done = "/" if target.startswith("/") else done
        left = [*target.split("/"), *left]
    return done, links


def program(argv: Sequence[str], *, search: str, home: str, never: Sequence[str], trusted: bool) -> Followed:
    """Return what has to be seen so that ``argv`` runs: the program, its interpreter, and the paths that it names.

    ``trusted``: the words were written by who may decide what is shown. Of others only a program's plain name counts,
    which is looked for in ``search``.
    """
    found = Followed()
    words = argv if trusted else argv[:1]
    for path in _named(words, search) if trusted or "/" not in argv[0] else ():
        _trace(path, found, search=search, home=home, never=never, steps=_MOST_STEPS)
    return found


def _named(argv: Sequence[str], search: str) -> Iterator[str]:
    if first := shutil.which(argv[0], path=search):
        yield os.path.abspath(first)
    for word in argv[1:]:
        path = word.rpartition("=")[2]
        if path.startswith("/") and os.path.exists(path):
            yield path


def _trace(path: str, found: Followed, *, search: str, home: str, never: Sequence[str], steps: int) -> None:
    if steps == 0:
        return
    with suppress(OSError):  # a link into nowhere, or a file that cannot be read: then it does not run anyway
        real, links = follow(path, never=never)
        if real is None or not os.path.exists(real):
            return
        if any(within(real, place) for place in never):
            return  # it is seen anyway, and what it names may have been written by an agent
        found.links += links
        found.paths.append(_tree(real, home))
        for next_one in _needed(path, real, search):
            _trace(next_one, found, search=search, home=home, never=never, steps=steps - 1)


def _tree(real: str, home: str) -> str:
    """Return what of ``real``'s surroundings belongs to it: a package's folder, an environment, or itself alone."""
    if os.path.isdir(real):
        return real
    before, modules, _ = real.partition("/node_modules/")
    if modules and not within(home, before):
        return f"{before}/node_modules"
    folder = os.path.dirname(real)
    outer = os.path.dirname(folder)
    if os.path.exists(f"{outer}/pyvenv.cfg") and _is_narrow(outer, home):
        return outer
    runs = real.endswith(_SCRIPTS) or os.access(real, os.X_OK)
    return folder if runs and _is_narrow(folder, home) else real


def _is_narrow(folder: str, home: str) -> bool:
    return folder.count("/") >= _LEAST_DEPTH and not within(home, folder)


def _needed(path: str, real: str, search: str) -> Iterator[str]:
    """Yield the programs that this one is run by."""
    if os.path.isfile(real):
        with open(real, "rb") as file:
            line = file.readline(_FIRST_LINE_BYTES)
        if line.startswith(b"#!"):
            yield from _interpreters(line[2:].decode(errors="replace").split(), search)
    for place in (path, real):
        settings = os.path.join(os.path.dirname(os.path.dirname(place)), "pyvenv.cfg")
        if os.path.exists(settings):
            # A virtual environment needs the Python that it was made from.
            yield os.path.dirname(settings)
            with open(settings, encoding="utf-8") as file:
                told = dict(line.split(" = ", 1) for line in file.read().splitlines() if " = " in line)
            if told.get("home"):
                yield os.path.dirname(told["home"].rstrip("/"))


def _interpreters(words: Sequence[str], search: str) -> Iterator[str]:
    if not words:
        return
    yield words[0]
    if os.path.basename(words[0]) == "env":
        wanted = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
        if wanted and (program_of := shutil.which(wanted, path=search)):
            yield os.path.abspath(program_of)
