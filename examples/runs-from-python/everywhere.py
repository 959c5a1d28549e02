"""One command in many folders at once, each in a machine of its own, with what each printed, answered and changed.

    borough up &
    python examples/runs-from-python/everywhere.py 'sed -i s/colour/color/g *.txt; wc -l *.txt' FOLDER...

Nothing in the folders is changed: what each run changed is printed as a patch for `git apply`.
"""

import asyncio
import os
import sys
from pathlib import Path

from borough import AsyncRun

IMAGE = os.environ.get("IMAGE", "host")


async def in_folder(folder: str, script: str) -> int:
    """Run the script in a copy of the folder; return 0 where it went well."""
    async with await AsyncRun.create(
        f"run a script in {Path(folder).name}", command=["sh", "-c", script], source=folder, image=IMAGE
    ) as run:
        async for line in run.log():
            print(f"{folder}: {line}")
        info = await run.wait()
        if info.state != "succeeded":
            print(f"{folder}: {info.state}: {info.reason}", file=sys.stderr)
            return 1
        print(await run.patch(), end="")
        return 0


async def main(script: str, *folders: str) -> int:
    """Run the script everywhere; return 0 where all went well."""
    return max(await asyncio.gather(*(in_folder(folder, script) for folder in folders)), default=0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
