"""Runs as their commands and their SDK see them: where files come from, the log as it grows, the end."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from borough.client.http import Client
from borough.client.urls import segment
from borough.core.errors import Unavailable

OVER: Final = frozenset({"succeeded", "failed", "refused", "cancelled", "killed"})
PATIENCE_S: Final = 60.0
"""How long a server may be away while a run is followed: it goes on meanwhile."""
_AGAIN_S: Final = 0.2
_LONGEST_WAIT_S: Final = 20
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A piece of what a run's command printed."""

    attempt: int
    text: str


def source_of(server: Client, folder: Path | None, git: str | None, ref: str | None) -> dict[str, str] | None:
    """Return how a request names the files: a folder is read by a server on this machine, and sent to any other."""
    if git is not None:
        return {"kind": "git", "url": git} | ({} if ref is None else {"ref": ref})
    if folder is None:
        return None
    if urlsplit(server.url).hostname in _LOOPBACK:
        return {"kind": "folder", "path": str(folder.absolute())}
    return {"kind": "upload"}


def begin(server: Client, body: Mapping[str, object], folder: Path | None, *, key: str | None = None) -> Any:
    """Ask for a run, send its files where it waits for them, and return it."""
    made = server.post("/v1/runs", body, key=key)
    if body.get("source") != {"kind": "upload"} or folder is None:
        return made
    from borough.client.tarring import packed  # noqa: PLC0415 - few need it

    return server.send("PUT", f"/v1/runs/{segment(made['id'])}/source", packed(folder))


def log_parts(server: Client, run_id: str) -> Iterator[LogPart]:
    """Yield a run's log as it grows, until it has ended, over a server's restart too.

    Raises:
        Unavailable: the server stayed away for too long.
    """
    attempt, offset, lost_at = 0, 0, 0.0
    while True:
        try:
            with closing(server.stream(f"/v1/runs/{segment(run_id)}/log", {"follow": 1, "offset": offset})) as events:
                for event in events:
                    lost_at = 0.0
                    if event.type != "log":
                        continue
                    told = json.loads(event.data)
                    attempt, offset = told["attempt"], told["end"]
                    yield LogPart(attempt=attempt, text=told["text"])
            run = ended(server, run_id, within_s=1)
            if run["state"] in OVER:
                return
            if run["attempt"] != attempt:
                offset = 0  # the next one's log has a beginning of its own
        except Unavailable:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > PATIENCE_S:
                raise
            time.sleep(_AGAIN_S)


def ended(server: Client, run_id: str, *, within_s: float | None = None) -> Any:
    """Return a run as soon as it has ended, or as it is after ``within_s``; a server may be away for a while.

    Raises:
        Unavailable: the server stayed away for too long.
    """
    until = None if within_s is None else time.monotonic() + within_s
    path, lost_at, first = f"/v1/runs/{segment(run_id)}", 0.0, True
    while True:
        left = _LONGEST_WAIT_S if until is None else until - time.monotonic()
        query = None if first else {"wait": max(1, min(_LONGEST_WAIT_S, round(left)))}
        try:
            run = server.get(path, query)
            lost_at, first = 0.0, False
            if run["state"] in OVER or (query is not None and left <= 0):
                return run
        except Unavailable:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > PATIENCE_S:
                raise
            time.sleep(_AGAIN_S)
