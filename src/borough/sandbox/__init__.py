"""A machine of the fleet from Python: ``Sandbox`` and ``AsyncSandbox``, the same names in both.

    from borough import Sandbox

    with Sandbox.create(image="tiny", engine="bubblewrap") as sandbox:
        print(sandbox.commands.run("uname -a").stdout)

Each sandbox is an environment of one machine. Leaving the ``with`` block deletes it; one that is never deleted expires.
"""

from borough.sandbox.asynchronous import AsyncSandbox
from borough.sandbox.blocking import Sandbox
from borough.sandbox.errors import (
    CommandFailed,
    FleetUnavailable,
    NotAllowed,
    NothingThere,
    Refused,
    SandboxError,
)
from borough.sandbox.values import CommandResult, FileInfo

__all__ = [
    "AsyncSandbox",
    "CommandFailed",
    "CommandResult",
    "FileInfo",
    "FleetUnavailable",
    "NotAllowed",
    "NothingThere",
    "Refused",
    "Sandbox",
    "SandboxError",
]
