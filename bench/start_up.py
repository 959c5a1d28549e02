"""How soon ``tt --help`` is there, against the least that a program on click can take."""

import subprocess
import time

from bench.figures import Figure, Section, median, milliseconds
from bench.harness import BIN

ROUNDS = 25
GOAL = 1.5


def took(*argv: object) -> float:
    began = time.perf_counter()
    subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


async def measure() -> Section:
    help_s: list[float] = []
    click_s: list[float] = []
    for _ in range(ROUNDS):
        help_s.append(took(BIN / "tt", "--help"))
        click_s.append(took(BIN / "python", "-c", "import click"))
    ratio = median(help_s) / median(click_s)
    return Section(
        name="start_up",
        title="Commands",
        how=f"Median of {ROUNDS} runs of each, in turns.",
        figures=[
            Figure(what="`python -c 'import click'`", value=milliseconds(median(click_s))),
            Figure(what="`tt --help`", value=milliseconds(median(help_s))),
            Figure(what="ratio", value=f"{ratio:.2f}", goal=f"≤ {GOAL}", met=ratio <= GOAL),
        ],
    )
