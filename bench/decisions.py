"""How long it takes to decide about a call, with few rules and with many."""

import time
from collections.abc import Iterator

from bench.figures import Figure, Section, percentile
from borough.core.clock import utc_now
from borough.governance.conditions import Facts
from borough.governance.manifest_reading import parse_manifest
from borough.governance.policy import Law, judge, law_of

DECISIONS = 20_000
GOAL_P50_US, GOAL_P99_US = 20.0, 100.0
ARGUMENTS: dict[str, dict[str, object]] = {
    "echo": {"message": "hello"},
    "fs.read": {"path": "/workspace/reports/2026/march.txt"},
}


def manifest(rules: int) -> str:
    """A manifest whose last rules allow the call, after as many others as there are to be."""
    capabilities = ['"tool.invoke:fs.read"', '"fs.read:/workspace/reports/**"']
    policy = "".join(_rules(rules - len(capabilities)))
    return f"""\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {{name: decided, version: 1.0.0}}
spec:
  trust_level: trusted
  capabilities: [{", ".join(capabilities if rules > 1 else ['"tool.invoke:echo"'])}]
{f"  policy:{chr(10)}{policy}" if policy else ""}"""


def _rules(count: int) -> Iterator[str]:
    """Rules of every kind that look like the call and do not speak of it; one in twenty has to be looked at closely."""
    kinds = (
        "{{effect: deny, capability: 'fs.read:/workspace/reports/{0}/**'}}",
        "{{effect: deny, capability: 'tool.invoke:fs.x{0}'}}",
        "{{effect: allow, capability: 'fs.read:/workspace/r{0}/**'}}",
        "{{effect: ask, capability: 'net.connect:host{0}.example:443'}}",
    )
    close = "{{effect: deny, capability: 'fs.read:/workspace/**', when: {{arguments: {{/path: '/workspace/{0}/*'}}}}}}"
    for number in range(count):
        kind = close if number % 20 == 19 else kinds[number % 4]
        yield f"  - {kind.format(number)}\n"


def timed(law: Law, tool: str) -> list[float]:
    arguments = ARGUMENTS[tool]
    facts = Facts(at=utc_now())
    if judge(law, tool, arguments, facts).verdict != "allowed":
        raise ValueError(f"{tool} is not allowed by the law that is measured")
    took: list[float] = []
    for _ in range(DECISIONS):
        began = time.perf_counter()
        judge(law, tool, arguments, facts)
        took.append(time.perf_counter() - began)
    return took


async def measure() -> Section:
    figures: list[Figure] = []
    for rules, tool in ((1, "echo"), (100, "fs.read")):
        took = timed(law_of(parse_manifest(manifest(rules))), tool)
        p50, p99 = percentile(took, 50) * 1e6, percentile(took, 99) * 1e6
        what = f"{rules} rule{'s' if rules > 1 else ''} ({tool})"
        figures += [
            Figure(what=f"{what}, p50", value=f"{p50:.1f} µs", goal=f"≤ {GOAL_P50_US:.0f} µs", met=p50 <= GOAL_P50_US),
            Figure(what=f"{what}, p99", value=f"{p99:.1f} µs", goal=f"≤ {GOAL_P99_US:.0f} µs", met=p99 <= GOAL_P99_US),
        ]
    return Section(
        name="decisions",
        title="Decisions",
        how=(
            f"{DECISIONS:,} calls are judged one after the other, each wholly: the tool, the rules with their "
            "conditions, taint, the arguments against their schema, the network, the budget."
        ),
        figures=figures,
    )
