"""The ledger: one chain of entries for the whole installation, and what binds each to all before it.

Three things bind an entry. ``hash`` and ``prev_hash`` are the reference system's chain, kept for its clients; it
covers only some fields and joins them without separators. ``prev_leaf`` is the leaf hash of the entry before, and
the leaf is over the canonical bytes of *all* fields, so it proves what the first chain cannot. The leaves form the
Merkle tree that checkpoints sign.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType

from borough.core.clock import rfc3339
from borough.core.errors import Invalid
from borough.governance.canonical import Json, canonical_bytes
from borough.governance.merkle import CompleteNode, Frontier, leaf_hash

GENESIS_HASH = "0" * 64
"""What stands for the entry before the first, in both chains."""
MOST_ENTRY_BYTES = 262_144
MOST_DETAIL_CHARACTERS = 16_384


class Kind(StrEnum):
    """What an entry tells: that something is about to be done, how it went, or that it happened."""

    INTENT = "intent"
    OUTCOME = "outcome"
    EVENT = "event"


class Outcome(StrEnum):
    """How it went."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILURE = "failure"
    PENDING = "pending"
    """For an intent: not known yet."""
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"
    """The process ended between intent and outcome: it may or may not have been done."""


class Via(StrEnum):
    """How it was asked for."""

    HTTP = "http"
    IPC = "ipc"
    MCP = "mcp"
    TOWN = "town"
    FLEET = "fleet"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is to be recorded. Free of secrets already: what is recorded cannot be taken back."""

    id: str
    at: datetime
    agent_id: str
    """Who did it: the agent that the caller's token or socket is bound to."""
    action: str
    outcome: Outcome
    kind: Kind = Kind.EVENT
    via: Via = Via.DAEMON
    agent_name: str = ""
    detail: str = ""
    on_behalf_of: str | None = None
    """The agent that it was done to or for, when that is another one."""
    intent_id: str | None = None
    """For an outcome: the entry that announced it."""
    run_id: str | None = None
    token_name: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    decision_rule: str | None = None
    policy_id: str | None = None
    """The approval or secret policy that was used."""
    input_sha256: str | None = None
    data: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    """Whatever else belongs to the action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the ledger stands: all that the next entry is bound to."""

    size: int = 0
    """How many entries there are; the next one's ``seq``."""
    hash: str = GENESIS_HASH
    leaf: str = GENESIS_HASH
    frontier: Frontier = field(default_factory=Frontier)

    def __post_init__(self) -> None:
        if self.frontier.size != self.size:
            raise ValueError("the head and its tree are of the same size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """An entry in its final form."""

    seq: int
    id: str
    canonical: bytes
    """All fields, as they are hashed, stored, shown and exported."""
    leaf: bytes
    hash: str
    nodes: tuple[CompleteNode, ...]
    """The tree's nodes that this entry completed."""


GENESIS = Head()

OPTIONAL_FIELDS = (
    "on_behalf_of",
    "intent_id",
    "run_id",
    "token_name",
    "request_id",
    "trace_id",
    "decision_rule",
    "policy_id",
    "input_sha256",
)


def legacy_hash(*, prev_hash: str, timestamp: str, agent_id: str, action: str, detail: str, outcome: str) -> str:
    """Return the reference system's hash of an entry."""
    joined = prev_hash + timestamp + agent_id + action + detail + outcome
    return sha256(joined.encode()).hexdigest()


def seal(draft: Draft, head: Head) -> tuple[Sealed, Head]:
    """Bind ``draft`` to everything before it; return the entry and the head after it.

    Raises:
        Invalid: it has no canonical form (``not_canonical``), or is too long (``entry_too_long``).
    """
    if len(draft.detail) > MOST_DETAIL_CHARACTERS:
        raise _too_long(f"its detail has {len(draft.detail)} characters, {MOST_DETAIL_CHARACTERS} are the most")
    fields = fields_of(draft, head)
    canonical = canonical_bytes(fields)
    if len(canonical) > MOST_ENTRY_BYTES:
        raise _too_long(f"it takes {len(canonical)} bytes, {MOST_ENTRY_BYTES} are the most")
    leaf = leaf_hash(canonical)
    frontier, nodes = head.frontier.append(leaf)
    hash_ = str(fields["hash"])
    sealed = Sealed(seq=head.size, id=draft.id, canonical=canonical, leaf=leaf, hash=hash_, nodes=nodes)
    return sealed, Head(size=head.size + 1, hash=hash_, leaf=leaf.hex(), frontier=frontier)


def fields_of(draft: Draft, head: Head) -> dict[str, Json]:
    """Return the entry's fields as they are shown; those that are ``None`` are left out."""
    timestamp = rfc3339(draft.at)
    fields: dict[str, Json] = {
        "seq": head.size,
        "id": draft.id,
        "agent_id": draft.agent_id,
        "agent_name": draft.agent_name,
        "action": draft.action,
        "timestamp": timestamp,
        "detail": draft.detail,
        "outcome": draft.outcome.value,
        "kind": draft.kind.value,
        "via": draft.via.value,
        "prev_hash": head.hash,
        "prev_leaf": head.leaf,
        "hash": legacy_hash(
            prev_hash=head.hash,
            timestamp=timestamp,
            agent_id=draft.agent_id,
            action=draft.action,
            detail=draft.detail,
            outcome=draft.outcome.value,
        ),
    }
    fields.update({name: value for name in OPTIONAL_FIELDS if (value := getattr(draft, name)) is not None})
    if draft.data:
        fields["data"] = dict(draft.data)
    return fields


def fit_detail(text: str) -> str:
    """Return ``text``, cut where it is longer than a detail may be; what is left out is told."""
    if len(text) <= MOST_DETAIL_CHARACTERS:
        return text
    note = f"… ({len(text)} characters)"
    return text[: MOST_DETAIL_CHARACTERS - len(note)] + note


def _too_long(reason: str) -> Invalid:
    return Invalid(
        "the entry is too long for the ledger",
        code="entry_too_long",
        reason=reason,
        resolution="record a digest of the large part and keep the part itself elsewhere",
    )
