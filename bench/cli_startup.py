"""How long ``tt --help`` takes, as a ratio to ``python -c 'import click'``: minima of alternating runs. Goal: 1.5."""

import subprocess
import sys
import time

RUNS = 15
GOAL = 1.5
HELP = [sys.executable, "-m", "borough.cli.tt", "--help"]
CLICK = [sys.executable, "-c", "import click"]


def took_s(argv: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    for argv in (HELP, CLICK):
        took_s(argv)  # bytecode and page cache
    pairs = [(took_s(HELP), took_s(CLICK)) for _ in range(RUNS)]
    shown, imported = (min(one[side] for one in pairs) for side in (0, 1))
    ratio = shown / imported
    print(f"tt --help {shown * 1000:.0f} ms, import click {imported * 1000:.0f} ms, ratio {ratio:.2f} (goal {GOAL})")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
