"""What agents keep, what is kept for them, and what they tell each other: memory, observations, secrets, the bus."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.memory import MemoryEntry
from borough.governance.messages import BusMessage, Mail
from borough.governance.observations import NewObservation, Observation, ObservationFilter
from borough.governance.secrets import SecretPolicy


class Memory(Protocol):
    """What agents keep under keys, by their name. The shared blackboard is such a memory too, one that ends with the
    daemon.
    """

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

    async def swap(
        self,
        namespace: str,
        key: str,
        *,
        expected: object,
        new: str | None,
        at: datetime,
        ttl_s: int | None = None,
    ) -> MemoryEntry | None:
        """Write or delete as ``memory.swapped`` says, in one step; raises what that raises, and ``Conflict``
        (``memory_full``).
        """

    async def keys(self, namespace: str, *, at: datetime, page: PageRequest) -> Page[str]:
        """Return the keys that have not expired, in order."""

    async def sweep(self, *, at: datetime, limit: int) -> int:
        """Delete at most ``limit`` expired entries; return how many."""


class Observations(Protocol):
    """What agents say of themselves, one chain for each."""

    async def append(self, agent_id: AgentId, new: NewObservation, *, id: str, at: datetime) -> Observation:  # noqa: A002 - the field's name
        """Bind ``new`` to the agent's last observation and store it, in one step; idempotent by id.

        Times do not run backwards in a chain: it is kept ``at`` then, or when the last one was if that is later.

        Raises:
            Invalid: it cannot be kept.
            Conflict: another agent's observation has the id (``observation_exists``).
        """

    async def find(self, agent_id: AgentId, wanted: ObservationFilter) -> tuple[Observation, ...]:
        """Return the newest wanted observations, oldest first."""


class Secrets(Protocol):
    """Sealed values and the policies for their use. Values leave this only to be put into a call."""

    async def unlock(self, passphrase: bytes) -> int:
        """Open the store (or make it, the first time) and return how many secrets it holds.

        Raises:
            Forbidden: the passphrase is wrong (``wrong_passphrase``).
            Invalid: it is empty (``invalid_passphrase``).
        """

    async def lock(self) -> None:
        """Close the store and forget every value and the key."""

    async def rekey(self, old: bytes, new: bytes) -> int:
        """Seal everything anew, all or nothing, and return how many secrets that were. Open stays open.

        Raises:
            Forbidden: the old passphrase is wrong, or there was none yet (``wrong_passphrase``).
            Invalid: the new one is empty (``invalid_passphrase``).
        """

    async def put(self, name: str, value: bytes, *, description: str | None) -> None:
        """Seal a value under ``name``, over an older one; raises ``Unavailable`` (``store_locked``) while locked, as do
        the next two, and ``Invalid`` (``invalid_secret_name``, ``invalid_secret_value``).
        """

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
        """Count one more use in one step; raises ``Forbidden`` (``policy_exhausted``) when none was left, and
        ``NotFound`` (``policy_not_found``).
        """


class Bus(Protocol):
    """Messages between agents by topic, in memory: lost at a restart. Patterns are globs whose segments end with a dot
    or a slash.
    """

    async def publish(self, message: BusMessage) -> int:
        """Put a message into the mailbox of every agent that has a matching subscription, once for each, and return how
        many there were. A full mailbox loses its oldest message for it.
        """

    async def subscribe(self, agent_id: AgentId, pattern: str) -> None:
        """Let an agent have what is published under matching topics from now on; idempotent.

        Raises:
            Invalid: the pattern cannot be used (``invalid_topic``).
            Conflict: the agent has as many as it may (``too_many_subscriptions``).
        """

    async def unsubscribe(self, agent_id: AgentId, pattern: str) -> bool:
        """End the subscription of exactly this pattern and tell whether there was one; its messages stay."""

    async def subscriptions(self, agent_id: AgentId) -> tuple[str, ...]:
        """Return an agent's patterns, in order."""

    async def poll(self, agent_id: AgentId) -> Mail:
        """Empty an agent's mailbox and return what was in it, oldest first, and how many were lost since last time."""

    async def end(self, agent_id: AgentId) -> None:
        """Forget an agent's subscriptions and mailbox: it has ended."""
