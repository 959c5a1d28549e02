"""Controllers and host daemons that are killed: real processes, forked from one that has everything imported.

``python -m tests.faults.fleet.doomed`` reads orders, one JSON object a line, and runs each in a process of its own:
the process's pid is said on a line, and, when it has ended, how.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiohttp
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from borough.bootstrap.fleet import open_fleet
from borough.bootstrap.host import HostParts, Parts, local_parts, open_host
from borough.bootstrap.serving import serve, take
from borough.config.fleet import HostSettings, Listening
from borough.fleetd import fleet_application
from borough.hostd import host_application
from tests.faults.fleet.points import Points
from tests.services.fleet_house import settings_of_controller, settings_of_host
from tests.services.plain_engine import plain_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A program to run, and where in it the end comes."""

    program: str
    """``controller``, ``host`` (its machines are processes), or ``bubblewrap host``."""
    folder: str
    port: int
    die_at: int = 0
    """The number of the point, from 1; 0 is never."""
    armed_by: str = ""
    """The request from which on points count, as in ``POST /api/envs``; none: from the beginning."""
    host_id: str = ""

    @property
    def told(self) -> Path:
        """Where the points are written that were reached."""
        return Path(self.folder) / "points"

    @property
    def log(self) -> Path:
        """What the program printed."""
        return Path(self.folder) / "log"


def listening(port: int) -> Listening:
    """Return an address of this machine for everybody on it."""
    return Listening(host="127.0.0.1", port=port)


async def controller(order: Order, points: Points) -> None:
    """Serve a controller whose loops do not turn: what it does is what it was asked, and so are its points."""
    settings = settings_of_controller(Path(order.folder), listening=listening(order.port))
    points.at_commits()
    points.at_calls()
    opening, stopping = take(settings.listening, settings.data_dir, how="--listen"), asyncio.Event()
    async with open_fleet(settings) as opened:
        app = _arming(fleet_application(settings, opening, opened, stopping), order, points)
        await serve(opening, app, stopping, name="tt-ctl", loops=())


async def host(order: Order, points: Points, made_of: Parts = plain_parts) -> None:
    """Serve a host daemon that leaves the network alone; it reconciles when it starts, and not again."""
    settings = settings_of_host(
        Path(order.folder), listening=listening(order.port), host_id=order.host_id, change_network=False
    )
    points.at_commits()
    points.at_changes()

    @asynccontextmanager
    async def parts(wanted: HostSettings, marker: str) -> AsyncIterator[HostParts]:
        async with made_of(wanted, marker) as made:
            drivers = {engine: points.watched(driver) for engine, driver in made.drivers.items()}
            yield replace(made, disks=points.watched(made.disks), network=points.watched(made.network), drivers=drivers)

    opening, stopping = take(settings.listening, settings.data_dir, how="--listen"), asyncio.Event()
    async with open_host(settings, parts=parts) as opened:
        app = _arming(host_application(settings, opening, opened, stopping), order, points)
        await serve(opening, app, stopping, name="tt-agent", loops=())


async def bubblewrap_host(order: Order, points: Points) -> None:
    """Serve a host daemon with the engines that this machine has."""
    await host(order, points, local_parts)


def _arming(app: ASGIApp, order: Order, points: Points) -> ASGIApp:
    async def armed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and order.armed_by:
            method, path = order.armed_by.split()
            if scope["method"] == method and scope["path"].startswith(path):
                points.arm()
        await app(scope, receive, send)

    return armed


def _run(order: Order) -> None:
    out = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    points = Points(order.told, order.die_at)
    if not order.armed_by:
        points.arm()
    programs = {"controller": controller, "host": host, "bubblewrap host": bubblewrap_host}
    uvloop.run(programs[order.program](order, points))


def main() -> None:
    """Run what is ordered, one after another."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _run(Order(**json.loads(line)))
            finally:
                os._exit(1)
        _answer(pid)
        _answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


# -- for those who order -----------------------------------------------------------------------------------------------


class Doomed:
    """Runs programs, one at a time, and sees them end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = 0

    async def start(self, order: Order) -> "asyncio.Task[int]":
        """Start a program; return what tells its exit code when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        self.pid = int(await self._line())
        return asyncio.create_task(self._ended())

    def kill(self) -> None:
        """End the program at once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def _ended(self) -> int:
        return int(await self._line())

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        said = await self._process.stdout.readline()
        assert said, "it ended by itself"
        return said


async def serves(url: str, ended: "asyncio.Task[int]") -> None:
    """Return as soon as a program serves, or has ended."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(60):
        while not ended.done():
            try:
                async with client.get(f"{url}/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def doomed_programs() -> AsyncIterator[Doomed]:
    """Yield what runs programs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, cwd=Path(__file__).parents[3],
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Doomed(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    main()
