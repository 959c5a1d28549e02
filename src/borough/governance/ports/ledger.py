"""The ledger: where it is written, read and followed."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.ledger import Draft, Head, Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries of the ledger; no actions or outcomes means any. Both ends of the time are included."""

    agents: frozenset[AgentId] | None = None
    """Entries of one of these agents, or made on behalf of one: ``None`` is any, and none of them is none at all, so
    that a caller who may see nobody sees nothing.
    """
    actions: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A signed note over the first ``size`` entries."""

    size: int
    at: datetime
    note: str


class Ledger(Protocol):
    """The one chain of entries. There is one writer; appends of many callers are written together."""

    async def append(self, drafts: Sequence[Draft]) -> tuple[Sealed, ...]:
        """Seal ``drafts`` one after the other, with nothing between them, and return when they are on disk.

        A draft whose id is there already is not written again; its entry is returned. Whoever stops waiting does not
        stop it: what was asked for is written. Either all of them are in the
        ledger or, when this raises, none is acknowledged: the caller must not act then.

        Raises:
            Invalid: a draft cannot be sealed.
            Unavailable: the ledger cannot be written (``ledger_unavailable``).
        """

    async def head(self) -> Head:
        """Return where the ledger stands on disk."""

    async def get(self, seq: int) -> Sealed:
        """Return one entry; raises ``NotFound`` (``entry_not_found``), also for one that retention dropped."""

    async def named(self, entry_id: str) -> Sealed:
        """Return the entry of an id; raises as ``get``."""

    async def newest(self, wanted: EntryFilter, *, limit: int) -> tuple[Sealed, ...]:
        """Return the newest ``limit`` wanted entries, oldest first."""

    async def find(self, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return wanted entries in order; the position after an entry is its ``seq``."""

    async def before(self, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return the newest wanted entries before a position, oldest first; ``page.after`` '' is the ledger's end, and
        the position after a page is the ``seq`` of its oldest entry: pages go back in time.
        """

    async def open_intents(self) -> tuple[Sealed, ...]:
        """Return the intents that have no outcome, oldest first; for the start after a crash."""

    async def node(self, level: int, place: int) -> bytes:
        """Return the hash of a complete node of the tree; kept also where its entries were dropped."""

    async def nodes(self, wanted: Collection[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        """Return the hashes of many complete nodes, by level and place."""

    async def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint; raises ``NotFound`` (``checkpoint_not_found``) before the first."""

    async def sign_now(self) -> SignedCheckpoint:
        """Sign all that is on disk and return the checkpoint; the same one again when nothing was added."""

    def export(self, *, first_seq: int, size: int) -> AsyncIterator[bytes]:
        """Yield the lines of an export of the entries from ``first_seq`` to before ``size``, header included."""

    async def retain(self, *, before: datetime, limit: int) -> int:
        """Drop at most ``limit`` of the oldest entries from before ``before`` and return how many; the head that the
        first kept entry is bound to is carried over in the same step.
        """


class Intake(Protocol):
    """Acts that were recorded elsewhere first, in a source that numbers them: each is taken into the ledger once."""

    async def position(self, source: str) -> str:
        """Return up to where the acts of ``source`` were taken; '' before the first."""

    async def take(self, source: str, drafts: Sequence[Draft], *, up_to: str) -> None:
        """Seal ``drafts`` and move the position to ``up_to``, in one step: both are on disk, or neither is.

        Raises:
            Invalid: a draft cannot be sealed.
            Unavailable: the ledger cannot be written.
        """


class LedgerFeed(Protocol):
    """Entries as they are written, fanned out inside this process."""

    def subscribe(self, *, capacity: int = 1024) -> AbstractAsyncContextManager[AsyncIterator[Sealed]]:
        """Yield every entry from now on, once it is on disk. A reader that falls ``capacity`` behind is cut off: its
        iterator ends, and it reads on from the ledger.
        """
