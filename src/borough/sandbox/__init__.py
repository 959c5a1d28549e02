"""Machines and runs from Python: ``Sandbox`` and ``Run``, and for asyncio ``AsyncSandbox`` and ``AsyncRun``.

    from borough import Sandbox

    with Sandbox.create(image="tiny", engine="bubblewrap") as sandbox:
        print(sandbox.commands.run("uname -a").stdout)

Each sandbox is an environment of one machine. Leaving the ``with`` block deletes it; one that is never deleted expires.

    from borough import Run

    with Run.create("say where you are", command=["uname", "-n"]) as run:
        for line in run.log():
            print(line)
        print(run.wait().result)

A run is a task in a machine of its own, on a ``borough up``.
"""

from borough.sandbox.asynchronous import AsyncSandbox
from borough.sandbox.asynchronous_run import AsyncRun
from borough.sandbox.blocking import Sandbox
from borough.sandbox.errors import (
    CommandFailed,
    FleetUnavailable,
    NotAllowed,
    NothingThere,
    Refused,
    RunFailed,
    SandboxError,
)
from borough.sandbox.run import Run
from borough.sandbox.run_values import Admission, Budget, ChangedFile, Killed, RunInfo, RunResult, Spent
from borough.sandbox.values import CommandResult, FileInfo

__all__ = [
    "Admission",
    "AsyncRun",
    "AsyncSandbox",
    "Budget",
    "ChangedFile",
    "CommandFailed",
    "CommandResult",
    "FileInfo",
    "FleetUnavailable",
    "Killed",
    "NotAllowed",
    "NothingThere",
    "Refused",
    "Run",
    "RunFailed",
    "RunInfo",
    "RunResult",
    "Sandbox",
    "SandboxError",
    "Spent",
]
