"""What agents keep, and what is kept for them: memory, observations, secrets."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.memory import MemoryEntry
from borough.governance.observations import NewObservation, Observation, ObservationFilter
from borough.governance.secrets import SecretPolicy


class Memory(Protocol):
    """What agents keep under keys, by their name; ``board`` names the shared blackboard's space."""

    async def read(self, namespace: str, key: str, *, at: datetime) -> MemoryEntry | None:
        """Return what is there and has not expired."""

    async def write(
        self,
        namespace: str,
        key: str,
        value: str,
        *,
        at: datetime,
        ttl_s: int | None,
        expected_version: int | None = None,
    ) -> MemoryEntry:
        """Write as ``memory.written`` says, in one step; raises what that raises, and ``Conflict``
        (``memory_full``).
        """

    async def delete(self, namespace: str, key: str, *, at: datetime, expected_version: int | None = None) -> bool:
        """Delete what is there and tell whether there was something; raises ``Conflict`` (``version_mismatch``)."""

    async def keys(self, namespace: str, *, at: datetime, page: PageRequest) -> Page[str]:
        """Return the keys that have not expired, in order."""

    async def sweep(self, *, at: datetime, limit: int) -> int:
        """Delete at most ``limit`` expired entries; return how many."""


class Observations(Protocol):
    """What agents say of themselves, one chain for each."""

    async def append(self, agent_id: AgentId, new: NewObservation, *, id: str, at: datetime) -> Observation:  # noqa: A002 - the field's name
        """Bind ``new`` to the agent's last observation and store it, in one step; idempotent by id."""

    async def find(self, agent_id: AgentId, wanted: ObservationFilter) -> tuple[Observation, ...]:
        """Return the newest wanted observations, oldest first."""


class Secrets(Protocol):
    """Sealed values and the policies for their use. Values leave this only to be put into a call."""

    async def unlock(self, passphrase: bytes) -> int:
        """Open the store (or make it, the first time) and return how many secrets it holds.

        Raises:
            Forbidden: the passphrase is wrong (``wrong_passphrase``).
        """

    async def lock(self) -> None:
        """Close the store and forget every value and the key."""

    async def rekey(self, old: bytes, new: bytes) -> int:
        """Seal everything anew, all or nothing; raises ``Forbidden`` (``wrong_passphrase``)."""

    async def put(self, name: str, value: bytes, *, description: str | None) -> None:
        """Seal a value under ``name``; raises ``Unavailable`` (``store_locked``) while locked, as do the next two."""

    async def values(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return values by name; raises ``NotFound`` (``secret_not_found``)."""

    async def every_value(self) -> Mapping[str, str]:
        """Return all values, for keeping them out of what is shown."""

    async def names(self) -> tuple[str, ...]:
        """Return the names, locked or not."""

    async def remove(self, name: str) -> None:
        """Forget a secret; raises ``NotFound`` (``secret_not_found``)."""

    async def policies(self) -> tuple[SecretPolicy, ...]:
        """Return every policy, oldest first."""

    async def add_policy(self, policy: SecretPolicy) -> None:
        """Store a policy; idempotent by id."""

    async def remove_policy(self, policy_id: str) -> None:
        """Forget a policy; raises ``NotFound`` (``policy_not_found``)."""

    async def count_use(self, policy_id: str) -> SecretPolicy:
        """Count one more use in one step; raises ``Forbidden`` (``policy_exhausted``) when none was left."""
