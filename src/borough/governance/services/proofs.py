"""Proving the ledger: checkpoints, proofs of inclusion and consistency, and checking a range of it here."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from borough.core.errors import Invalid, NotFound, Unavailable
from borough.core.paging import PageRequest
from borough.governance.access import Verb
from borough.governance.checkpoints import VerifierKey, open_checkpoint
from borough.governance.merkle import (
    HASH_BYTES,
    NodeHash,
    consistency_proof,
    inclusion_proof,
    root_of,
    root_with,
)
from borough.governance.ports.ledger import EntryFilter, Ledger, SignedCheckpoint
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.verification import Broken, Link, NotWhole, check_entries, read_header

MOST_CHECKED = 10_000
"""Entries in one request."""
CHECKED_AT_ONCE = 250
"""Entries between which others have their turn."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """That an entry is in the tree that a checkpoint signs (RFC 6962, 2.1.1)."""

    seq: int
    leaf: bytes
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """That a tree begins with an older one (RFC 6962, 2.1.2)."""

    old: int
    new: int
    old_root: bytes
    new_root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found in a range of entries."""

    first_seq: int
    entries: int
    """How many are whole, bound to the one before, and (when nothing is broken) under the checkpoint."""
    next_seq: int | None
    """Where to go on; ``None`` at the end, and where something is broken."""
    head: str
    """The hash of the last entry that is whole."""
    broken: Broken | None
    checkpoint: SignedCheckpoint


class ProofService:
    """Proofs hold hashes only, so they are for everybody who may read some of the ledger."""

    def __init__(self, ledger: Ledger, gate: Gate, key: VerifierKey) -> None:
        self._ledger = ledger
        self._gate = gate
        self._key = key

    async def key(self, asker: Asker) -> str:
        """Return the key by which checkpoints are verified."""
        await self._gate.admit(asker, Verb.READ_AUDIT)
        return str(self._key)

    async def checkpoint(self, asker: Asker) -> SignedCheckpoint:
        """Return a checkpoint over all that is on disk; where nothing can be written, the newest that there is."""
        await self._gate.admit(asker, Verb.READ_AUDIT)
        return await self._newest()

    async def inclusion(self, asker: Asker, seq: int) -> Inclusion:
        """Prove that an entry is in the ledger; also one that retention dropped.

        Raises:
            NotFound: there is no such entry (``entry_not_found``).
        """
        await self._gate.admit(asker, Verb.READ_AUDIT)
        signed = await self._over(seq + 1)
        if seq >= signed.size:
            raise NotFound(
                f"there is no entry {seq}",
                code="entry_not_found",
                resolution=f"the ledger has {signed.size} entries, the first of them is 0",
            )
        hashes = await self._from_nodes(lambda node: inclusion_proof(seq, signed.size, node))
        return Inclusion(seq=seq, leaf=await self._ledger.node(0, seq), hashes=hashes, checkpoint=signed)

    async def consistency(self, asker: Asker, old: int, new: int | None) -> Consistency:
        """Prove that the ledger of ``new`` entries (``None``: the signed ones) begins with that of ``old``.

        Raises:
            Invalid: there never were ledgers of these sizes, one before the other (``invalid_range``).
        """
        await self._gate.admit(asker, Verb.READ_AUDIT)
        signed = await self._over(max(old, new or 0))
        size = signed.size if new is None else new
        if not 0 < old <= size <= signed.size:
            raise Invalid(
                "there is no such proof",
                code="invalid_range",
                reason=f"the sizes are {old} and {size}, and the ledger has {signed.size} entries",
                resolution="give sizes with 0 < from <= to",
            )
        return Consistency(
            old=old,
            new=size,
            old_root=await self._from_nodes(lambda node: root_of(old, node)),
            new_root=await self._from_nodes(lambda node: root_of(size, node)),
            hashes=await self._from_nodes(lambda node: consistency_proof(old, size, node)),
            checkpoint=signed,
        )

    async def check(self, asker: Asker, *, first_seq: int, limit: int) -> Checked:
        """Check at most ``limit`` entries from ``first_seq`` on (or from the first that is kept): each against its
        hashes and the one before, and all of them against the signed root.
        """
        await self._gate.admit(asker, Verb.READ_AUDIT)
        signed = await self._newest()
        kept = await self._ledger.find(EntryFilter(), PageRequest(limit=1))
        begin = max(first_seq, kept.items[0].seq) if kept.items else signed.size
        end = min(begin + min(limit, MOST_CHECKED), signed.size)
        if begin >= end:
            return Checked(first_seq=begin, entries=0, next_seq=None, head="", broken=None, checkpoint=signed)
        lines = [line async for line in self._ledger.export(first_seq=begin, size=end)]
        try:
            start = read_header(lines[0])
        except NotWhole as found:
            return Checked(first_seq=begin, entries=0, next_seq=None, head="", broken=found.broken, checkpoint=signed)
        link = Link(seq=start.size, hash=start.hash, leaf=start.leaf)
        leaves, link, broken = await _check_lines(lines[1:], link)
        broken = broken or await self._root_broken(begin, leaves, signed)
        return Checked(
            first_seq=begin,
            entries=len(leaves),
            next_seq=end if broken is None and end < signed.size else None,
            head=link.hash,
            broken=broken,
            checkpoint=signed,
        )

    async def _root_broken(self, begin: int, leaves: list[bytes], signed: SignedCheckpoint) -> Broken | None:
        try:
            told = open_checkpoint(signed.note, self._key)
        except Invalid as error:
            return Broken(part="checkpoint", seq=None, line=0, reason=f"{error.message}: {error.reason}")
        root = await self._from_nodes(lambda node: root_with(signed.size, begin, leaves, node))
        if (told.size, told.root) == (signed.size, root):
            return None
        reason = "the entries agree with each other, but they are not those that were signed"
        for seq, leaf in enumerate(leaves, start=begin):
            if await self._ledger.node(0, seq) != leaf:
                return Broken(part="entry", seq=seq, line=0, reason=reason)
        return Broken(part="checkpoint", seq=None, line=0, reason=reason)

    async def _newest(self) -> SignedCheckpoint:
        try:
            return await self._ledger.sign_now()
        except Unavailable:
            return await self._ledger.checkpoint()

    async def _over(self, size: int) -> SignedCheckpoint:
        """Return a checkpoint over at least ``size`` entries, if there are as many."""
        try:
            signed = await self._ledger.checkpoint()
        except NotFound:
            return await self._ledger.sign_now()
        return signed if signed.size >= size else await self._ledger.sign_now()

    async def _from_nodes(self, make: Callable[[NodeHash], T]) -> T:
        """Return what ``make`` makes of the tree's nodes: it is run once to learn which, and once with them."""
        wanted: dict[tuple[int, int], None] = {}

        def learn(level: int, place: int) -> bytes:
            wanted[level, place] = None
            return bytes(HASH_BYTES)

        make(learn)
        found: list[Awaitable[bytes]] = [self._ledger.node(level, place) for level, place in wanted]
        nodes = dict(zip(wanted, await asyncio.gather(*found), strict=True))
        return make(lambda level, place: nodes[level, place])


async def _check_lines(lines: list[bytes], link: Link) -> tuple[list[bytes], Link, Broken | None]:
    """Return the leaves of the entries that are whole, what the next is bound to, and what is broken first."""
    leaves: list[bytes] = []
    try:
        for leaf, bound in check_entries(lines, link):
            leaves.append(leaf)
            link = bound
            if len(leaves) % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
    except NotWhole as found:
        return leaves, link, found.broken
    return leaves, link, None
