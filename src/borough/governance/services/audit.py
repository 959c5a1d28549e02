"""Reading the ledger: an agent's trail, all entries, exports."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.access import Verb
from borough.governance.ledger import Sealed
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.verification import checkpoint_lines

DEFAULT_TRAIL = 100
LONGEST_TRAIL = 10_000
EVERYTHING = EntryFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A part of the ledger up to a checkpoint, as a file that proves itself."""

    first_seq: int
    size: int
    lines: AsyncIterator[bytes]


class AuditService:
    """What the ledger tells, and whom."""

    def __init__(self, ledger: Ledger, gate: Gate) -> None:
        self._ledger = ledger
        self._gate = gate

    async def trail(
        self, asker: Asker, agent_id: AgentId, wanted: EntryFilter, *, limit: int = DEFAULT_TRAIL
    ) -> tuple[Sealed, ...]:
        """Return the newest ``limit`` wanted entries of an agent, or made on its behalf, oldest first.

        Agents that have ended stay readable as long as the ledger tells of them.

        Raises:
            NotFound: there is no such agent, and never was one (``agent_not_found``).
            Forbidden: the caller may not read its trail.
        """
        of_agent = replace(wanted, agents=frozenset({agent_id}))
        try:
            target = await self._gate.agent(agent_id)
        except NotFound:
            # The register forgets agents that ended long ago; whoever reaches them by name only does so no more.
            reach = await self._gate.reach(asker, Verb.READ_AUDIT)
            known = await self._ledger.newest(replace(EVERYTHING, agents=of_agent.agents), limit=1)
            if not known or (reach is not None and agent_id not in reach):
                raise
        else:
            await self._gate.admit(asker, Verb.READ_AUDIT, target)
        return await self._ledger.newest(of_agent, limit=limit)

    async def before(self, asker: Asker, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return wanted entries that the caller may see, from the newest back; each page is oldest first."""
        return await self._ledger.before(await self._within_reach(asker, wanted), page)

    async def entry(self, asker: Asker, seq: int) -> Sealed:
        """Return one entry; raises ``NotFound`` (``entry_not_found``), also where the caller may not see it."""
        found = await self._ledger.get(seq)
        visible = await self._within_reach(asker, EVERYTHING)
        if visible is EVERYTHING:
            return found
        upwards = await self._ledger.before(visible, PageRequest(limit=1, after=str(seq + 1)))
        if [entry.seq for entry in upwards.items] == [seq]:
            return found
        raise NotFound(
            f"there is no entry {seq} that you may see",
            code="entry_not_found",
            resolution="ask for entries of agents within your reach: GET /audit",
        )

    async def find(self, asker: Asker, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return wanted entries that the caller may see, from the oldest on."""
        return await self._ledger.find(await self._within_reach(asker, wanted), page)

    async def export(self, asker: Asker, *, first_seq: int | None) -> Export:
        """Return everything from ``first_seq`` on (``None``: from the first that is kept), with a checkpoint over it.

        Raises:
            Forbidden: the caller may not read everything.
            NotFound: the entry is not there (``entry_not_found``).
        """
        await self._gate.admit(asker, Verb.EXPORT_AUDIT)
        signed = await self._ledger.sign_now()
        if first_seq is None:
            kept = await self._ledger.find(EVERYTHING, PageRequest(limit=1))
            first_seq = kept.items[0].seq if kept.items else signed.size
        elif first_seq >= signed.size:
            raise NotFound(
                f"there is no entry {first_seq}",
                code="entry_not_found",
                resolution=f"the ledger has {signed.size} entries, the first of them is 0",
            )
        else:
            await self._ledger.get(first_seq)
        lines = self._lines(first_seq, signed.size, signed.note)
        return Export(first_seq=first_seq, size=signed.size, lines=lines)

    async def _lines(self, first_seq: int, size: int, note: str) -> AsyncIterator[bytes]:
        async for line in self._ledger.export(first_seq=first_seq, size=size):
            yield line
        yield checkpoint_lines(note)

    async def _within_reach(self, asker: Asker, wanted: EntryFilter) -> EntryFilter:
        reach = await self._gate.reach(asker, Verb.READ_AUDIT)
        if reach is None:
            return wanted
        return replace(wanted, agents=reach if wanted.agents is None else wanted.agents & reach)
