"""On whose behalf something is done: known where a request begins, and read where it is written down."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ACTOR: ContextVar[str] = ContextVar("actor", default="")


def actor() -> str:
    """Return who acts here, as a principal's id; '' where the program acts by itself.

    What a request starts and leaves running has its actor still.
    """
    return _ACTOR.get()


@contextmanager
def acting_as(principal_id: str) -> Iterator[None]:
    """Let everything within this context be done on behalf of ``principal_id``."""
    token = _ACTOR.set(principal_id)
    try:
        yield
    finally:
        _ACTOR.reset(token)
