"""Starting a program that outlives the command that needs it."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""Kept, so that what still runs is not reported as forgotten when the interpreter ends."""


def start_detached(argv: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> int:
    """Start ``argv`` in a session of its own, its output appended to ``log``; return its pid."""
    with log.open("ab") as file:
        log.chmod(0o600)
        child = subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _STARTED.append(child)
    return child.pid
