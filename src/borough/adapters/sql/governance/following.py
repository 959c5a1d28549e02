"""What is done in the event loop after a step is on disk, in the order of the steps, whoever still waits for them."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import apsw

Change = TypeVar("Change")


class Following(Generic[Change]):
    """Hands what steps have noted to ``then``, once it is on disk and before the steps' callers go on.

    A step that was undone has noted nothing. So what is kept in memory by ``then`` never is ahead of the disk, nor
    behind it when its caller was told. Where a commit failed in a way that leaves open what is on disk, everything is
    noted anew as ``reload`` reads it.
    """

    def __init__(
        self, then: Callable[[Change], None], *, reload: Callable[[apsw.Connection], Iterable[Change]]
    ) -> None:
        self._then = then
        self._reload = reload
        self._noted: list[Change] = []

    def note(self, change: Change) -> None:
        """Keep ``change`` for after the commit; to be called in a step."""
        self._noted.append(change)

    def mark(self) -> int:
        """Return how much is noted."""
        return len(self._noted)

    def undo(self, mark: object) -> None:
        """Forget what was noted since ``mark``."""
        if not isinstance(mark, int):
            raise TypeError("that is no mark of this follower")
        del self._noted[mark:]

    def rebuild(self, connection: apsw.Connection) -> None:
        """Note everything as it is on disk now."""
        self._noted = list(self._reload(connection))

    def committed(self) -> Callable[[], None] | None:
        """Return what hands over everything noted, if there is something."""
        if not self._noted:
            return None
        noted, self._noted = self._noted, []

        def hand_over() -> None:
            for change in noted:
                self._then(change)

        return hand_over
