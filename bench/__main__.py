"""``python -m bench [NAME …]``: measure, print, and write into docs/performance.md."""

import asyncio
import importlib
import sys
import time

import uvloop

from bench.figures import Section, rendered, write

NAMES = (
    *("enqueue", "work", "rivals", "reads", "heartbeat", "memory", "ledger", "decisions", "sandbox"),
    *("tool_calls", "live_events", "placement", "controller", "machines", "runs", "dashboard"),
    "start_up",
)


async def measured(name: str) -> Section:
    section: Section = await importlib.import_module(f"bench.{name}").measure()
    return section


def main() -> int:
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := set(wanted) - set(NAMES):
        print(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    missed = 0
    for name in wanted:
        began = time.monotonic()
        section = uvloop.run(measured(name)) if name != "start_up" else asyncio.run(measured(name))
        write(section)
        print(rendered(section), f"\n({time.monotonic() - began:.0f} s)\n", flush=True)
        missed += sum(figure.met is False for figure in section.figures)
    print(f"{missed} goals missed" if missed else "all goals met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
