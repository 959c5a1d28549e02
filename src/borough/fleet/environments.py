"""Environments: machines that are made, stopped, started, deleted and expired together.

The state is never set by a command. It follows from the machines, so that it cannot say what is not so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from borough.core.errors import Invalid
from borough.fleet.vms import VmState

DEFAULT_LIFETIME = timedelta(hours=6)
MOST_LIFETIME = timedelta(hours=6)
"""Unless the fleet is configured otherwise."""
WARN_BEFORE_EXPIRY = timedelta(minutes=15)
MOST_LABELS = 32
MOST_LABEL_CHARACTERS = 128
_MOST_LIFETIME_S = 10 * 365 * 86_400


class EnvState(StrEnum):
    """How an environment stands, taken together."""

    WAITING = "waiting"
    """There is no room for its machines yet: it has none, and that is in the rows."""
    CREATING = "creating"
    ACTIVE = "active"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"


class OnExpiry(StrEnum):
    """What happens when the lifetime is over."""

    DELETE = "delete"
    STOP = "stop"


class Spread(StrEnum):
    """How machines are laid over the hosts."""

    PACK = "pack"
    """Fill hosts up: the least free memory first."""
    SPREAD = "spread"
    """As many hosts as can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment as it is kept."""

    id: str
    owner: str
    created_at: datetime
    expires_at: datetime
    on_expiry: OnExpiry = OnExpiry.DELETE
    labels: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False
    """Somebody asked for its end, or its time is over; it stays visible until every host has confirmed."""
    stopped_at: datetime | None = None
    """When its time ran out and it was stopped for that."""
    private_network: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long an environment may live, and what the caller should know of it."""

    seconds: int
    warnings: tuple[str, ...] = ()


def lifetime_of(wanted_s: int | None, *, most: timedelta = MOST_LIFETIME) -> Lifetime:
    """Return the lifetime that counts: nothing and 0 mean the default, too much is cut, and both are told.

    Raises:
        Invalid: it is negative or beyond all sense (``invalid_lifetime``).
    """
    most_s = round(most.total_seconds())
    default_s = min(round(DEFAULT_LIFETIME.total_seconds()), most_s)
    if wanted_s is None:
        return Lifetime(seconds=default_s)
    if not 0 <= wanted_s <= _MOST_LIFETIME_S:
        raise Invalid(
            f"{wanted_s} is not a lifetime",
            code="invalid_lifetime",
            resolution=f"give seconds from 1 to {most_s}, or leave it out for {default_s}",
        )
    if wanted_s == 0:
        return Lifetime(seconds=default_s, warnings=(f"a lifetime of 0 means the default of {default_s} s",))
    if wanted_s > most_s:
        return Lifetime(seconds=most_s, warnings=(f"the lifetime was cut to {most_s} s, the most that is configured",))
    return Lifetime(seconds=wanted_s)


def state_of(environment: Environment, machines: Iterable[VmState]) -> EnvState:
    """Return how an environment stands, from its machines; the worst counts."""
    if environment.deleting:
        return EnvState.DELETING
    states = set(machines)
    if not states:
        return EnvState.STOPPED if environment.stopped_at else EnvState.ACTIVE
    if VmState.CREATING in states:
        return EnvState.CREATING
    if states & {VmState.FAILED, VmState.UNKNOWN, VmState.DELETING}:
        return EnvState.FAILED
    if states <= {VmState.STOPPED, VmState.PAUSED}:
        return EnvState.STOPPED
    return EnvState.ACTIVE if VmState.STOPPED not in states else EnvState.FAILED


def reference_state(state: EnvState) -> str:
    """Return the word that the reference's clients know for ``state``."""
    return "active" if state in (EnvState.ACTIVE, EnvState.CREATING, EnvState.WAITING) else "stopped"


class Due(StrEnum):
    """What an environment's clock asks for."""

    NOTHING = "nothing"
    WARN = "warn"
    EXPIRE = "expire"


def due(environment: Environment, *, at: datetime, warned: bool) -> Due:
    """Return what the clock asks for at ``at``."""
    if environment.deleting or environment.stopped_at is not None:
        return Due.NOTHING
    if at >= environment.expires_at:
        return Due.EXPIRE
    if not warned and at >= environment.expires_at - WARN_BEFORE_EXPIRY:
        return Due.WARN
    return Due.NOTHING


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return ``labels`` if they are few and short.

    Raises:
        Invalid: they are not (``invalid_labels``).
    """
    long = [key for key, value in labels.items() if not key or max(len(key), len(value)) > MOST_LABEL_CHARACTERS]
    if len(labels) > MOST_LABELS or long:
        raise Invalid(
            "these labels cannot be kept",
            code="invalid_labels",
            resolution=f"use at most {MOST_LABELS} of at most {MOST_LABEL_CHARACTERS} characters",
        )
    return labels
