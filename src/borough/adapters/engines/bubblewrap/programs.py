"""What a manifest starts: which program with which arguments, as its box sees it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from borough.adapters.engines.bubblewrap.errors import start_failed
from borough.adapters.engines.bubblewrap.skeleton import Interpreters
from borough.adapters.engines.bubblewrap.view import overlaps, within
from borough.core.errors import Unavailable
from borough.governance.manifests import Manifest, Runtime
from borough.governance.ports.workspaces import WORKSPACE

_SEARCHED = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_SEEN_ANYWAY = ("/usr", "/bin", "/sbin", "/lib", WORKSPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A command line in a box, and which files of the host have to be shown for it."""

    argv: Sequence[str]
    shown: Sequence[str]


def started(manifest: Manifest, interpreters: Interpreters, *, hidden: Sequence[str]) -> Started | None:
    """Return what the manifest starts; ``None`` when it names nothing.

    A relative path is one in the workspace; a plain name is looked for among the system's programs. A program or
    script elsewhere on the host is shown to the box under its own name, as itself alone.

    Raises:
        Unavailable: it cannot run here (``start_failed``, ``runtime_missing``).
    """
    program = manifest.program
    if program.runtime is not Runtime.RUST and program.entrypoint is not None:
        interpreter = runtime(interpreters, "python3" if program.runtime is Runtime.PYTHON else "node")
        script = _in_box(program.entrypoint)
        return Started(argv=[interpreter, script, *program.args], shown=_shown([script], hidden))
    named = program.command or program.entrypoint
    if named is None:
        return None
    command = _found(named) if "/" not in named else _in_box(named)
    return Started(argv=[command, *program.args], shown=_shown([command], hidden))


def runtime(interpreters: Interpreters, name: str) -> str:
    """Return the program that runs code of ``name``: ``sh``, ``python3`` or ``node``.

    Raises:
        Unavailable: this host has none (``runtime_missing``).
    """
    found: dict[str, str | None] = {"sh": interpreters.sh, "python3": interpreters.python3, "node": interpreters.node}
    if path := found.get(name):
        return path
    raise Unavailable(
        f"there is no {name} on this host that a sandbox can use",
        code="runtime_missing",
        reason="sandboxes see the programs below /usr only",
        resolution=f"install {name} as a package of the system, or choose from {', '.join(filter(found.get, found))}",
    )


def _in_box(path: str) -> str:
    return os.path.normpath(path if path.startswith("/") else f"{WORKSPACE}/{path}")


def _found(name: str) -> str:
    for folder in _SEARCHED:
        if os.access(f"{folder}/{name}", os.X_OK):
            return f"{folder}/{name}"
    raise start_failed(f"the program {name!r}", f"it is in none of {', '.join(_SEARCHED)}")


def _shown(paths: Sequence[str], hidden: Sequence[str]) -> list[str]:
    elsewhere = [path for path in paths if not any(within(path, place) for place in _SEEN_ANYWAY)]
    for path in elsewhere:
        if overlaps(path, hidden):
            raise start_failed(f"the program {path}", "it lies where the daemon keeps its own things")
    return elsewhere
