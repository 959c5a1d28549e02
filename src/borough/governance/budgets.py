"""Budgets: how much an agent may use of calls, tokens, money and wall time, and what it has used.

Money is counted in whole millionths of the unit that tools are priced in; nothing here is a float.
"""

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from borough.core.errors import Invalid

MICROS = 1_000_000
WARN_PERCENT = 80
"""From here on an agent is warned; at 100 it stops."""
_MOST_MICROS = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that may be used; ``None`` is no limit."""

    calls: int | None = None
    tokens: int | None = None
    cost_micros: int | None = None
    wall_time_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was used so far."""

    calls: int = 0
    tokens: int = 0
    cost_micros: int = 0
    wall_time_s: int = 0


UNLIMITED = Limits()
NOTHING_SPENT = Spent()


class BudgetState(StrEnum):
    """How an agent stands with its budget."""

    WITHIN = "within"
    NEAR = "near"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhausted:
    """Which limit is used up."""

    resource: str
    limit: int
    spent: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{_told(self.resource, self.spent)} of {_told(self.resource, self.limit)} {_UNITS[self.resource]} used"


_UNITS = {"calls": "calls", "tokens": "tokens", "cost_micros": "cost units", "wall_time_s": "seconds"}
RESOURCES = tuple(_UNITS)


def charge(
    spent: Spent, *, calls: int = 0, tokens: int = 0, cost_micros: int = 0, wall_time_s: int | None = None
) -> Spent:
    """Return ``spent`` with more used. Wall time is told as a whole, not added: it passes by itself."""
    if min(calls, tokens, cost_micros) < 0:
        raise ValueError("what was spent cannot be taken back")
    return replace(
        spent,
        calls=spent.calls + calls,
        tokens=spent.tokens + tokens,
        cost_micros=spent.cost_micros + cost_micros,
        wall_time_s=spent.wall_time_s if wall_time_s is None else max(spent.wall_time_s, wall_time_s),
    )


def exhausted(limits: Limits, spent: Spent) -> Exhausted | None:
    """Return the first limit of which nothing is left, in the order of ``RESOURCES``."""
    for resource in RESOURCES:
        limit, used = getattr(limits, resource), getattr(spent, resource)
        if limit is not None and used >= limit:
            return Exhausted(resource=resource, limit=limit, spent=used)
    return None


def as_much_again(limits: Limits, spent: Spent) -> Limits:
    """Return a budget in which what is used up is given once more, beyond what was used."""

    def more(resource: str) -> int | None:
        limit: int | None = getattr(limits, resource)
        used: int = getattr(spent, resource)
        return limit if limit is None or used < limit else used + max(1, limit)

    return Limits(**{resource: more(resource) for resource in RESOURCES})


def would_exceed(limits: Limits, spent: Spent, *, cost_micros: int) -> Exhausted | None:
    """Return the limit that a call of an estimated cost would go beyond; a call may use a limit up exactly."""
    over = exhausted(limits, spent)
    if over is not None or limits.cost_micros is None:
        return over
    planned = spent.cost_micros + cost_micros
    return (
        Exhausted(resource="cost_micros", limit=limits.cost_micros, spent=planned)
        if planned > limits.cost_micros
        else None
    )


def state_of(limits: Limits, spent: Spent) -> BudgetState:
    """Return how ``spent`` stands to ``limits``; the worst of the resources counts."""
    if exhausted(limits, spent):
        return BudgetState.EXHAUSTED
    near = any(
        limit is not None and getattr(spent, resource) * 100 >= limit * WARN_PERCENT
        for resource in RESOURCES
        if (limit := getattr(limits, resource)) is not None
    )
    return BudgetState.NEAR if near else BudgetState.WITHIN


def narrower(child: Limits, parent: Limits, spent: Spent) -> Limits:
    """Return what a child may use: what it asks for, but no more than is left to its parent."""
    return Limits(
        **{
            resource: _least(getattr(child, resource), getattr(parent, resource), getattr(spent, resource))
            for resource in RESOURCES
        }
    )


def to_micros(amount: float | str) -> int:
    """Return an amount of money in millionths, rounded up.

    Raises:
        Invalid: it is no number, negative, or beyond all sense (``invalid_amount``).
    """
    try:
        micros = (Decimal(str(amount)) * MICROS).to_integral_value(rounding="ROUND_CEILING")
    except InvalidOperation:
        micros = Decimal(-1)
    if not (micros.is_finite() and 0 <= micros <= _MOST_MICROS):
        raise Invalid(
            f"{amount!r} is not an amount of money", code="invalid_amount", resolution="give a number from 0 up"
        )
    return int(micros)


def from_micros(micros: int) -> float:
    """Return millionths as the number that is shown on the wire."""
    return micros / MICROS


def _least(asked: int | None, limit: int | None, spent: int) -> int | None:
    left = None if limit is None else max(0, limit - spent)
    known = [value for value in (asked, left) if value is not None]
    return min(known) if known else None


def _told(resource: str, amount: int) -> str:
    return f"{from_micros(amount):g}" if resource == "cost_micros" else str(amount)
