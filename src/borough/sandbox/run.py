"""Runs for programs that wait: a task, in a machine of its own, under a manifest."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfileobj
from types import TracebackType
from typing import Any, Final, Self, Unpack

from borough.client import runs
from borough.client.discovery import NoServer, ServerAddress, find_server, find_town, named_address
from borough.client.fleet import FleetClient
from borough.client.http import Client
from borough.client.urls import segment
from borough.core.errors import Conflict
from borough.sandbox.blocking import Commands, Files
from borough.sandbox.errors import NothingThere, Refused, RunFailed, typed
from borough.sandbox.run_values import Admission, Asked, Killed, RunInfo, RunResult

_PAGE: Final = 100
_OURS: Final = frozenset({"git", "ref", "source", "manifest", "budget", "command", "labels"})
"""What is not said to the server as it was asked for."""


class Run:
    """A run on a ``borough up``. Use it from one thread; make one with ``create`` or ``connect``.

    Leaving a ``with`` block cancels what is still under way; without a block it goes on by itself.
    """

    def __init__(self, server: Client, told: Mapping[str, Any]) -> None:
        self._server = server
        self._info = RunInfo.of(told)

    @classmethod
    def create(
        cls,
        task: str,
        *,
        key: str | None = None,
        server: str | None = None,
        api_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> Self:
        """Begin a run and return as soon as it is admitted; with the same ``key`` it is the same run.

        Without ``server`` and ``api_key`` they are found as the ``borough`` command finds them: ``TINYTOWN_SERVER``, or
        the ``borough up`` of the town at or above the working folder.

        Raises:
            Refused: it is not admitted, or something asked for is wrong; the reason says what and why.
            NothingThere: no agent of that name is installed.
            NotAllowed: the credential is not known, or may not do this.
            FleetUnavailable: no server is known, or it does not answer.
        """
        with _opened(server, api_key) as client, typed():
            folder = Path(asked["source"]) if "source" in asked else None
            return cls(client, runs.begin(client, _order(client, task, asked), folder, key=key))

    @staticmethod
    def admission(
        task: str, *, server: str | None = None, api_key: str | None = None, **asked: Unpack[Asked]
    ) -> Admission:
        """Return whether, where and under what such a run would be, or why not; nothing is begun or written.

        Raises:
            Refused: something asked for is wrong. What is not admitted is no error here: see ``ok``.
            NothingThere: no agent of that name is installed.
        """
        with _opened(server, api_key) as client, closing(client), typed():
            body = _order(client, task, asked)
            return Admission.of(client.request("POST", "/v1/runs", query={"dry_run": 1}, body=body).json())

    @classmethod
    def connect(cls, id: str, *, server: str | None = None, api_key: str | None = None) -> Self:  # noqa: A002 - what it is called everywhere
        """Return a run that exists, by its id, its name, or the beginning of it; raises ``NothingThere``."""
        with _opened(server, api_key) as client, typed():
            return cls(client, client.get(f"/v1/runs/{segment(id)}"))

    @staticmethod
    def list(
        *,
        state: str | None = None,
        label: str | None = None,
        limit: int = _PAGE,
        server: str | None = None,
        api_key: str | None = None,
    ) -> Sequence[RunInfo]:
        """Return the newest runs, at most ``limit``; ``label``: only those marked with this ``key=value``."""
        found: Sequence[RunInfo] = ()
        with _opened(server, api_key) as client, closing(client), typed():
            cursor: str | None = None
            while len(found) < limit:
                query = {"state": state, "label": label, "limit": min(_PAGE, limit - len(found)), "cursor": cursor}
                page = client.get("/v1/runs", query)
                found = [*found, *(RunInfo.of(each) for each in page["runs"])]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        return found

    # -- what is known of it -------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """By which it can be connected to again."""
        return self._info.id

    @property
    def name(self) -> str:
        """What things are called that are made for it."""
        return self._info.name

    @property
    def info(self) -> RunInfo:
        """Return all that the server knows of it now."""
        with typed():
            return self._seen(self._server.get(self._path()))

    @property
    def state(self) -> str:
        """Return where it stands now."""
        return self.info.state

    @property
    def result(self) -> RunResult | None:
        """Return what was brought out of its machine; ``None``: nothing yet."""
        return self._info.result or self.info.result

    def log(self) -> Iterator[str]:
        """Yield the lines that its command prints, as they come, until it has ended; a server that is started again
        meanwhile is no end.

        Raises:
            FleetUnavailable: the server stayed away.
        """
        left = ""
        with typed(), closing(self._server.again()) as server:
            attempt = 0
            for part in runs.log_parts(server, self.id):
                if part.attempt != attempt and left:
                    yield left  # a machine that died in the middle of a line
                    left = ""
                attempt = part.attempt
                *lines, left = (left + part.text).split("\n")
                yield from lines
        if left:
            yield left

    def wait(self, *, timeout_s: float | None = None, check: bool = False) -> RunInfo:
        """Return how it ended, as soon as it has.

        Raises:
            TimeoutError: it had not after ``timeout_s``; it goes on.
            RunFailed: ``check`` is set and it did not succeed.
            FleetUnavailable: the server stayed away.
        """
        with typed():
            info = self._seen(runs.ended(self._server, self.id, within_s=timeout_s))
        if info.state not in runs.OVER:
            raise TimeoutError(f"{info.name} is {info.state} after {timeout_s:g} s")
        if check and info.state != "succeeded":
            raise RunFailed(info)
        return info

    def patch(self) -> str:
        """Return the files that it changed, as a unified patch (``git apply`` takes it).

        Raises:
            NothingThere: nothing was collected (yet).
        """
        with typed():
            return b"".join(self._server.parts("GET", self._path("/patch"))).decode()

    def ledger(self) -> Sequence[dict[str, Any]]:
        """Return what the ledger tells of it, oldest first."""
        with typed():
            found: Sequence[dict[str, Any]] = self._server.get(self._path("/ledger"))
            return found

    def evidence(self, path: str | Path) -> Path:
        """Write the proof of what it did into a file, which ``borough verify`` verifies anywhere; return where."""
        with (
            typed(),
            self._server.download(f"/v1/evidence/{segment(self.id)}") as stream,
            Path(path).open("wb") as file,
        ):
            copyfileobj(stream, file)
        return Path(path)

    # -- its machine ---------------------------------------------------------------------------------------------------

    @property
    def files(self) -> Files:
        """Return the files of its machine, as it is now; raises ``NothingThere``: it has none."""
        return Files(FleetClient(self._server), self._machine())

    @property
    def commands(self) -> Commands:
        """Return what runs commands in its machine, beside its own; raises ``NothingThere``: it has none."""
        return Commands(FleetClient(self._server), self._machine())

    # -- acting --------------------------------------------------------------------------------------------------------

    def cancel(self, reason: str = "") -> None:
        """End it, for it is no longer wanted; one that is over is no error."""
        with typed():
            try:
                self._seen(self._server.post(self._path("/cancel"), {"reason": reason}))
            except Conflict as error:
                if error.code != "run_over":
                    raise

    def retry(self) -> None:
        """Begin it once more, now that it is over, in a fresh machine.

        Raises:
            Refused: it is not over, it succeeded, something of it is left, or it is not admitted.
        """
        with typed():
            self._seen(self._server.post(self._path("/retry")))

    def kill(self, *, quarantine: bool = False, reason: str = "") -> Killed:
        """Take all power from it: key, machine, lease. With ``quarantine`` its machine stays, frozen.

        Raises:
            Refused: it is over.
            NotAllowed: the credential may not do this.
        """
        with typed():
            told = {"target": self.id, "quarantine": quarantine, "reason": reason}
            return Killed.of(self._server.post("/v1/kill", told))

    def close(self) -> None:
        """Let go of the connection; the run goes on."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._info.state not in runs.OVER:
                self.cancel("its program has left it")
        finally:
            self.close()

    def _path(self, more: str = "") -> str:
        return f"/v1/runs/{segment(self.id)}{more}"

    def _seen(self, told: Mapping[str, Any]) -> RunInfo:
        self._info = RunInfo.of(told)
        return self._info

    def _machine(self) -> str:
        info = self.info
        if info.vm_id is None:
            raise NothingThere(
                f"{info.name} has no machine",
                code="no_machine",
                reason=f"it is {info.state}",
                resolution="its machine is there while it is worked; what it changed is in patch()",
            )
        return info.vm_id


@contextmanager
def _opened(server: str | None, api_key: str | None) -> Iterator[Client]:
    """Hand out a client, which is closed where the body fails."""
    with typed():
        client = Client(_address(server, api_key))
    try:
        yield client
    except BaseException:
        client.close()
        raise


def _address(server: str | None, api_key: str | None) -> ServerAddress:
    address = find_server(find_town(Path.cwd()), named_address(server, os.environ), os.environ)
    if address is None:
        raise NoServer(
            "there is no server to speak to",
            reason=f"none is named, and none runs for a town at {Path.cwd()} or above it",
            resolution="start one here: borough up; or name one with server=",
        )
    return address if api_key is None else replace(address, token=api_key)


def _order(client: Client, task: str, asked: Asked) -> dict[str, Any]:
    """Return the body of the request that is meant."""
    git, manifest, budget = asked.get("git"), asked.get("manifest"), asked.get("budget")
    folder = Path(asked["source"]) if "source" in asked else None
    if git is not None and folder is not None:
        raise Refused("a run has one source", code="two_sources", resolution="name source or git, not both")
    told: dict[str, Any] = {name: value for name, value in asked.items() if name not in _OURS}
    made = {
        "task": task,
        "command": list(asked.get("command", ())),
        "manifest": manifest.read_text(encoding="utf-8") if isinstance(manifest, Path) else manifest,
        "source": runs.source_of(client, folder, git, asked.get("ref")),
        "budget": None if budget is None else budget.told(),
        "labels": dict(asked.get("labels", {})),
    }
    return told | {name: value for name, value in made.items() if value}
