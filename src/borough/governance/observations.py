"""Observations: what an agent says it did and saw; each agent's own chain, which nobody can bend afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from borough.core.clock import rfc3339
from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.governance.canonical import fingerprint

GENESIS_HASH = "0" * 64
MOST_TAGS = 32
MOST_TAG_CHARACTERS = 64
MOST_TEXT_CHARACTERS = 65_536
DEFAULT_LIMIT = 50
MOST_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObservation:
    """What the agent says."""

    action: str
    result: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the agent said, bound to what it said before."""

    id: str
    agent_id: AgentId
    at: datetime
    action: str
    result: str
    tags: tuple[str, ...]
    metadata: Mapping[str, object] | None
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationFilter:
    """Which observations; both ends of the time are included."""

    since: datetime | None = None
    until: datetime | None = None
    keyword: str | None = None
    """A part of action or result, in any case."""
    tag: str | None = None
    limit: int = field(default=DEFAULT_LIMIT)


def check_observation(new: NewObservation) -> NewObservation:
    """Return ``new`` if it can be kept.

    Raises:
        Invalid: it cannot (``invalid_observation``).
    """
    problem = None
    if not new.action or len(new.action) > MOST_TEXT_CHARACTERS or len(new.result) > MOST_TEXT_CHARACTERS:
        problem = f"action and result have at most {MOST_TEXT_CHARACTERS} characters, and action is not empty"
    elif len(new.tags) > MOST_TAGS or any(not 0 < len(tag) <= MOST_TAG_CHARACTERS for tag in new.tags):
        problem = f"there are at most {MOST_TAGS} tags of 1 to {MOST_TAG_CHARACTERS} characters"
    if problem:
        raise Invalid(
            "the observation cannot be kept", code="invalid_observation", reason=problem, resolution="shorten it"
        )
    return new


def chained(new: NewObservation, *, id: str, agent_id: AgentId, at: datetime, prev_hash: str) -> Observation:  # noqa: A002 - the field's name
    """Return ``new`` as the agent's next observation."""
    check_observation(new)
    return Observation(
        id=id,
        agent_id=agent_id,
        at=at,
        action=new.action,
        result=new.result,
        tags=new.tags,
        metadata=new.metadata,
        prev_hash=prev_hash,
        hash=hash_of(new, id=id, agent_id=agent_id, at=at, prev_hash=prev_hash),
    )


def hash_of(new: NewObservation, *, id: str, agent_id: AgentId, at: datetime, prev_hash: str) -> str:  # noqa: A002 - the field's name
    """Return the hash that binds an observation: over every field, each set apart from the next."""
    fields = [prev_hash, id, agent_id, rfc3339(at), new.action, new.result, list(new.tags), new.metadata]
    return sha256(b"borough observation 1\0" + fingerprint(fields).encode()).hexdigest()


def first_broken(observations: Sequence[Observation], *, prev_hash: str = GENESIS_HASH) -> int | None:
    """Return the place of the first observation that is not whole or not bound to the one before, if there is one."""
    for place, each in enumerate(observations):
        said = NewObservation(action=each.action, result=each.result, tags=each.tags, metadata=each.metadata)
        expected = hash_of(said, id=each.id, agent_id=each.agent_id, at=each.at, prev_hash=prev_hash)
        if each.prev_hash != prev_hash or each.hash != expected:
            return place
        prev_hash = each.hash
    return None


def matches(observation: Observation, wanted: ObservationFilter) -> bool:
    """Tell whether ``observation`` is among the wanted ones."""
    if (wanted.since and observation.at < wanted.since) or (wanted.until and observation.at > wanted.until):
        return False
    if wanted.tag is not None and wanted.tag not in observation.tags:
        return False
    keyword = (wanted.keyword or "").casefold()
    return keyword in observation.action.casefold() or keyword in observation.result.casefold()
