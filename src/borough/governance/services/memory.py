"""What agents keep under keys beyond their run: by their name, so that a later run finds it."""

from dataclasses import dataclass

import orjson

from borough.core.clock import utc_now
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.canonical import Json
from borough.governance.globs import compile_glob
from borough.governance.memory import MemoryEntry, check_key
from borough.governance.ports.records import Memory
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber

LONGEST_PATTERN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class NewValue:
    """What is to be written. ``value`` is JSON text."""

    value: str
    ttl_s: int | None = None
    expected_version: int | None = None
    """0: nothing is there yet; ``None``: whatever is there."""


class MemoryService:
    """Reads and writes agents' memory."""

    def __init__(self, memory: Memory, gate: Gate, recorder: Recorder, scrubber: Scrubber) -> None:
        self._memory = memory
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber

    async def read(self, asker: Asker, agent_id: AgentId, key: str) -> MemoryEntry:
        """Return what an agent keeps under ``key``.

        Raises:
            NotFound: there is no such agent (``agent_not_found``), or nothing under the key (``key_not_found``).
            Forbidden: the caller may not read it.
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.READ_MEMORY, agent, subject=key)
        entry = await self._memory.read(agent.memory_namespace, key, at=utc_now())
        if entry is None:
            raise key_not_found(key)
        return entry

    async def keys(self, asker: Asker, agent_id: AgentId, pattern: str | None, page: PageRequest) -> Page[str]:
        """Return keys that match ``pattern`` and that the caller may read; a page may be short of its limit."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.LIST_MEMORY, agent)
        return await visible_keys(
            self._memory,
            agent.memory_namespace,
            self._gate,
            asker,
            verb=Verb.READ_MEMORY,
            pattern=pattern,
            page=page,
        )

    async def write(self, asker: Asker, agent_id: AgentId, key: str, new: NewValue) -> MemoryEntry:
        """Write a value, and return it with its version.

        Raises:
            Conflict: another version is there than the expected one (``version_mismatch``), or there is no room for
                one more key (``memory_full``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.WRITE_MEMORY, agent, subject=key)
        value = scrubbed(self._scrubber, new.value)
        async with self._recorder.act(
            asker, Action.MEMORY_ACCESS, detail=f"write {key}", target=agent, data=_facts(key, value)
        ) as act:
            try:
                entry = await self._memory.write(
                    agent.memory_namespace,
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

    async def delete(self, asker: Asker, agent_id: AgentId, key: str, *, expected_version: int | None = None) -> None:
        """Delete a value.

        Raises:
            NotFound: nothing is there (``key_not_found``).
            Conflict: another version is there than the expected one (``version_mismatch``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.WRITE_MEMORY, agent, subject=key)
        async with self._recorder.act(
            asker, Action.MEMORY_ACCESS, detail=f"delete {key}", target=agent, data={"key": key}
        ):
            try:
                deleted = await self._memory.delete(
                    agent.memory_namespace, key, at=utc_now(), expected_version=expected_version
                )
            except Conflict as conflict:
                raise version_told(conflict) from None
            if not deleted:
                raise key_not_found(key)


async def visible_keys(
    memory: Memory,
    namespace: str,
    gate: Gate,
    asker: Asker,
    *,
    verb: Verb,
    pattern: str | None,
    page: PageRequest,
) -> Page[str]:
    """Return the next keys that match and that the caller may read."""
    glob = compile_glob(pattern[:LONGEST_PATTERN]) if pattern else None
    now = utc_now()
    while True:
        found = await memory.keys(namespace, at=now, page=page)
        matching = [key for key in found.items if glob is None or glob.matches(key)]
        shown = await gate.may_touch(asker, verb, matching)
        if shown or found.after is None:
            return Page(items=shown, after=found.after)
        page = PageRequest(limit=page.limit, after=found.after)


def scrubbed(scrubber: Scrubber, value: str) -> str:
    """Return JSON text without secrets; as it was written where there are none."""
    return value if scrubber.text(value) == value else orjson.dumps(scrubber.value(orjson.loads(value))).decode()


def key_not_found(key: str) -> NotFound:
    """Return what is raised where nothing is under ``key``, or what was is over."""
    return NotFound(
        f"there is nothing under the key {key[:80]!r}",
        code="key_not_found",
        resolution="list the keys that there are, and mind that values may expire",
    )


def version_told(conflict: Conflict) -> Conflict:
    """Return ``conflict`` with the version that is there, without the value: who may write may not read, perhaps."""
    version = conflict.details.get("version")
    if version is None:
        return conflict
    return Conflict(
        conflict.message,
        code=conflict.code,
        reason=conflict.reason,
        resolution=conflict.resolution,
        details={"version": version, "headers": {"etag": f'"{version}"'}},
    )


def _facts(key: str, value: str) -> dict[str, Json]:
    return {"key": key, "bytes": len(value.encode())}
