"""The blackboard: values that all agents share, until the daemon ends."""

from dataclasses import dataclass, field

from borough.core.clock import utc_now
from borough.core.errors import Conflict
from borough.core.paging import Page, PageRequest
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.canonical import Json
from borough.governance.memory import MemoryEntry, check_key
from borough.governance.ports.records import Memory
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.memory import NewValue, key_not_found, scrubbed, version_told, visible_keys
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber

SPACE = "board"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """What has to be there, and what is to be there instead."""

    expected: object
    """A JSON value, however it is spelled; ``None``: nothing is there."""
    new: str | None = field(default=None)
    """JSON text; ``None``: it is deleted."""
    ttl_s: int | None = None


class BlackboardService:
    """Reads and writes the blackboard by the caller's own capabilities: it belongs to no one agent."""

    def __init__(self, board: Memory, gate: Gate, recorder: Recorder, scrubber: Scrubber) -> None:
        self._board = board
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber

    async def read(self, asker: Asker, key: str) -> MemoryEntry:
        """Return what is under ``key``; raises ``NotFound`` (``key_not_found``)."""
        await self._gate.admit(asker, Verb.READ_BOARD, subject=key)
        entry = await self._board.read(SPACE, key, at=utc_now())
        if entry is None:
            raise key_not_found(key)
        return entry

    async def keys(self, asker: Asker, pattern: str | None, page: PageRequest) -> Page[str]:
        """Return keys that match ``pattern`` and that the caller may read; a page may be short of its limit."""
        await self._gate.admit(asker, Verb.LIST_BOARD)
        return await visible_keys(
            self._board, SPACE, self._gate, asker, verb=Verb.READ_BOARD, pattern=pattern, page=page
        )

    async def write(self, asker: Asker, key: str, new: NewValue) -> MemoryEntry:
        """Write a value; raises ``Conflict`` (``version_mismatch``, ``memory_full``)."""
        await self._gate.admit(asker, Verb.WRITE_BOARD, subject=key)
        value = scrubbed(self._scrubber, new.value)
        data: dict[str, Json] = {"key": key, "bytes": len(value.encode())}
        async with self._recorder.act(asker, Action.BLACKBOARD_ACCESS, detail=f"write {key}", data=data) as act:
            try:
                entry = await self._board.write(
                    SPACE,
                    check_key(key),
                    value,
                    at=utc_now(),
                    ttl_s=new.ttl_s,
                    expected_version=new.expected_version,
                )
            except Conflict as conflict:
                raise version_told(conflict) from None
            act.data["version"] = entry.version
        return entry

    async def swap(self, asker: Asker, key: str, swap: Swap) -> MemoryEntry | None:
        """Write a value (or delete what is there) if the expected value is there.

        Raises:
            Conflict: another value is there (``value_mismatch``); it is told to whom it may be.
        """
        await self._gate.admit(asker, Verb.WRITE_BOARD, subject=key)
        new = None if swap.new is None else scrubbed(self._scrubber, swap.new)
        async with self._recorder.act(asker, Action.BLACKBOARD_ACCESS, detail=f"swap {key}", data={"key": key}) as act:
            try:
                entry = await self._board.swap(
                    SPACE, check_key(key), expected=swap.expected, new=new, at=utc_now(), ttl_s=swap.ttl_s
                )
            except Conflict as conflict:
                readable = await self._gate.may_touch(asker, Verb.READ_BOARD, [key])
                raise conflict if readable else _without_value(conflict) from None
            act.data["version"] = entry.version if entry else 0
        return entry

    async def delete(self, asker: Asker, key: str) -> None:
        """Delete what is under ``key``; where nothing is, nothing happens."""
        await self._gate.admit(asker, Verb.WRITE_BOARD, subject=key)
        async with self._recorder.act(
            asker, Action.BLACKBOARD_ACCESS, detail=f"delete {key}", data={"key": key}
        ) as act:
            act.data["deleted"] = await self._board.delete(SPACE, key, at=utc_now())


def _without_value(conflict: Conflict) -> Conflict:
    return Conflict(conflict.message, code=conflict.code, reason=conflict.reason, resolution=conflict.resolution)
