"""Rules as a manifest writes them.

Under ``spec.policy``::

- id: office-hours
  effect: allow            # allow, ask (a human agrees to each call) or deny
  capability: tool.invoke:web.fetch
  reason: said to whom the rule stops
  approvers: 2             # with ask: how many different people have to agree
  when:
    arguments: {/url: "https://api.example.org/**"}
    at_most: {/timeout_ms: 5000}
    rate_per_minute: 30
    between: {from: "09:00", to: "17:00", days: [Mon, Tue], utc_offset: "+01:00"}
    budget: {cost: 2.5, tokens: 100000}
    until: 2026-12-31T00:00:00Z
"""

import re
from datetime import datetime

from borough.core.errors import Invalid
from borough.governance.budgets import Limits, to_micros
from borough.governance.capabilities import parse_capability
from borough.governance.conditions import (
    MINUTES_PER_DAY,
    ArgumentAtMost,
    ArgumentMatches,
    Condition,
    RatePerMinute,
    TimeWindow,
    Until,
    WithinBudget,
)
from borough.governance.globs import compile_glob
from borough.governance.manifest_fields import Fields, Problem, parsed_at
from borough.governance.rules import Effect, Rule

MOST_COUNT = 2**53 - 1
MOST_APPROVERS = 10
_RULE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4]):([0-5][0-9])")
_DAYS = {day: number for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}


def read_rule(fields: Fields) -> Rule | None:
    """Return one rule, or ``None`` when it has problems."""
    before = len(fields.problems)
    fields.require("effect", "capability")
    name = fields.text("id", pattern=_RULE_ID, rule="an id is made of letters, digits, '.', '_' and '-'") or fields.path
    effect = fields.word("effect", Effect)
    capability = fields.parsed("capability", fields.text("capability"), parse_capability)
    reason = fields.text("reason")
    approvers = fields.whole("approvers", least=1, most=MOST_APPROVERS)
    if approvers is not None and effect is not Effect.ASK:
        fields.note("approvers", "is there, but the rule asks nobody", "leave it out, or write effect: ask")
    when = fields.section("when")
    conditions = _conditions(when, name)
    if effect is Effect.DENY and (when.has("rate_per_minute") or when.has("budget")):
        when.note("", "limits what is allowed, so it makes no sense in a rule that denies", "put it in an allow rule")
    fields.close()
    if len(fields.problems) > before or effect is None or capability is None:
        return None
    return Rule(id=name, effect=effect, capability=capability, when=conditions, reason=reason, approvers=approvers or 1)


def read_budget(fields: Fields) -> Limits:
    """Return the limits of a budget; what is not there is no limit."""
    cost = fields.raw("cost")
    micros = None
    if cost is not None:
        amount = str(cost) if isinstance(cost, int | float | str) and not isinstance(cost, bool) else "nothing"
        micros = fields.parsed("cost", amount, to_micros)
    limits = Limits(
        calls=fields.whole("calls", least=0, most=MOST_COUNT),
        tokens=fields.whole("tokens", least=0, most=MOST_COUNT),
        cost_micros=micros,
        wall_time_s=fields.whole("wall_time_secs", least=1, most=MOST_COUNT),
    )
    fields.close()
    return limits


def parse_moment(text: str) -> datetime:
    """Return the moment that ``text`` says, with its offset.

    Raises:
        Invalid: it says none (``invalid_time``).
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid(
            f"{text[:80]!r} is not a moment",
            code="invalid_time",
            resolution="write it with its offset, as in 2026-01-31T12:00:00Z",
        )
    return moment


def _conditions(when: Fields, rule: str) -> tuple[Condition, ...]:
    found: list[Condition] = []
    for pointer, wanted in when.members("arguments"):
        patterns = wanted if isinstance(wanted, list) else [wanted]
        if not _POINTER.fullmatch(pointer) or not patterns or not all(isinstance(each, str) for each in patterns):
            when.note("arguments", f"has {pointer[:80]!r}", "write a JSON Pointer and a glob or a list of globs")
            continue
        found.append(ArgumentMatches(pointer=pointer, one_of=tuple(compile_glob(each) for each in patterns)))
    for pointer, limit in when.members("at_most"):
        if not _POINTER.fullmatch(pointer) or isinstance(limit, bool) or not isinstance(limit, int):
            when.note("at_most", f"has {pointer[:80]!r}", "write a JSON Pointer and a whole number")
            continue
        found.append(ArgumentAtMost(pointer=pointer, limit=limit))
    rate = when.whole("rate_per_minute", least=0, most=1_000_000)
    if rate is not None:
        found.append(RatePerMinute(rule=rule, limit=rate))
    between, budget = when.section("between"), when.section("budget")
    if between.present:
        found.append(_window(between))
    if budget.present:
        found.append(WithinBudget(limits=read_budget(budget)))
    until = when.parsed("until", when.text("until"), parse_moment)
    if until is not None:
        found.append(Until(moment=until))
    when.close()
    return tuple(found)


def _window(fields: Fields) -> TimeWindow:
    start = _minute(fields, "from", 0)
    end = _minute(fields, "to", MINUTES_PER_DAY)
    days = set()
    for path, day in fields.texts("days"):
        number = _DAYS.get(day.lower()[:3])
        if number is None:
            fields.problems.append(Problem(path=path, message=f"'{path}' is {day[:20]!r}", hint="write Mon, Tue, …"))
        else:
            days.add(number)
    offset = parsed_at(fields.at("utc_offset"), fields.text("utc_offset") or "+00:00", _offset_minutes, fields.problems)
    fields.close()
    return TimeWindow(
        start_minute=start,
        end_minute=end,
        weekdays=frozenset(days) if fields.has("days") else frozenset(range(7)),
        utc_offset_minutes=offset or 0,
    )


def _minute(fields: Fields, name: str, default: int) -> int:
    text = fields.text(name, pattern=_CLOCK, rule="write a time of day as 09:30")
    if text is None:
        return default
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _offset_minutes(text: str) -> int:
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise Invalid(f"{text[:20]!r} is not an offset from UTC", code="invalid_time", resolution="write it as +01:00")
    minutes = int(found[2]) * 60 + int(found[3])
    return -minutes if found[1] == "-" else minutes
