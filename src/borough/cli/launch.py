"""Starting a program that outlives the command that needs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from borough.adapters.process import ATTEMPT, OWNER, Child, start_server

_STARTED: Final[list[Child]] = []
"""Kept, so that what still runs is not reported as forgotten when the interpreter ends."""


def start_detached(argv: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> int:
    """Start ``argv`` in a session of its own, its output appended to ``log``; return its pid."""
    # Started from inside an agent's attempt it must not end with it: these variables mark what does.
    kept = {name: value for name, value in env.items() if name not in {OWNER, ATTEMPT}}
    child = start_server(argv, env=kept, cwd=cwd, log=log)
    _STARTED.append(child)
    return child.pid
