"""Loops around governance's records: what was counted is recorded, what has expired or was kept long enough goes."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from borough.controllers.loops import Controller

RECORD_EVERY = timedelta(seconds=1)
RETAIN_EVERY = timedelta(minutes=1)

Chore = Callable[[], Awaitable[object]]


def record(name: str, act: Chore) -> Controller:
    """Return a loop for what was counted in memory and is to be recorded."""
    return Controller(name=f"record {name}", every=RECORD_EVERY, act=act, first_after=RECORD_EVERY)


def retain(name: str, act: Chore) -> Controller:
    """Return a loop for what was kept long enough."""
    return Controller(name=f"retain {name}", every=RETAIN_EVERY, act=act, first_after=RETAIN_EVERY)
