"""Numbers, what they were measured on, and how they get into docs/performance.md."""

import math
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of a table. ``goal`` is told beside it, and ``met`` whether it was reached (``None``: no goal)."""

    what: str
    value: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one module measured."""

    name: str
    title: str
    how: str
    """One or two sentences: what was done, so that somebody else can do it again."""
    figures: Sequence[Figure] = field(default_factory=tuple)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that ``percent`` of ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 50)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def per_second(count: float, seconds: float) -> str:
    return f"{count / seconds:,.0f}/s"


def machine() -> str:
    """Say in one sentence what this was measured on."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory_kib = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model[1].strip() if model else platform.machine()}), "
        f"{memory_kib / 2**20:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


def rendered(section: Section) -> str:
    """Return the section as Markdown."""
    marks = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {f.what} | {f.value} | {f.goal} | {marks[f.met]} |" for f in section.figures]
    head = ["| figure | measured | goal | met |", "|---|---|---|---|"]
    when = datetime.now(UTC).date().isoformat()
    return "\n".join([f"## {section.title}", "", section.how, "", *head, *rows, "", f"*{when}; {machine()}.*"])


def write(section: Section, page: Path = PAGE) -> None:
    """Put the section between its marks, in place of what stood there.

    Raises:
        LookupError: the page has no such marks.
    """
    text = page.read_text()
    marks = re.compile(rf"(<!-- bench: {re.escape(section.name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    new, count = marks.subn(lambda found: f"{found[1]}{rendered(section)}\n{found[2]}", text)
    if count != 1:
        raise LookupError(f"{page} has {count} sections named {section.name}")
    page.write_text(new)
