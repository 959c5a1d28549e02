"""A town as its users start it: ``tt init``, then ``townhall rest`` in a process of its own."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from borough.config.town_file import change_town_setting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.dashboard import Tab

AGENT_CLI = f"{sys.executable} -c 'import sys; print(sys.stdin.read()[:200])'"


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, so that the user's settings change no test and no test fills the user's list of towns."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(kw_only=True)
class RunningTown:
    """A server process, and how to speak to it."""

    root: Path
    process: "subprocess.Popen[bytes]"
    url: str
    token: str
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None

    def connection(self, *, timeout_s: float = 30) -> HTTPConnection:
        """Return a fresh connection to the server."""
        parts = urlsplit(self.url)
        if self.tls is not None:
            return HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=self.tls)
        return HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: dict[str, str] | None = None,
        timeout_s: float = 30,
    ) -> Answer:
        """Send one request; ``token`` '' is the operator's, ``None`` none at all."""
        connection = self.connection(timeout_s=timeout_s)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=data, headers=sent)
            reply = connection.getresponse()
            return Answer(
                status=reply.status,
                headers={name.lower(): value for name, value in reply.getheaders()},
                body=reply.read(),
            )
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request that has to succeed; return its JSON."""
        answer = self.request(method, path, body)
        assert answer.status < 300, (method, path, answer.status, answer.body)
        return answer.json() if answer.body else None

    def tt(self, *arguments: str, check: bool = True, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run ``tt`` in the town's folder."""
        return run_tool("borough.cli.tt", *arguments, cwd=self.root, environ=self.environ, check=check, **more)


def run_tool(
    module: str, *arguments: str, cwd: Path, environ: dict[str, str] | None = None, check: bool = True, **more: Any
) -> "subprocess.CompletedProcess[str]":
    """Run one of Borough's programs as its console script does."""
    program = f"import sys; from {module} import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )
    if check:
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
    return done


def until(holds: Any, *, within_s: float = 60.0, process: "subprocess.Popen[bytes] | None" = None) -> Any:
    """Return the first true value of ``holds()``; fail after ``within_s`` or when ``process`` ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            pytest.fail(f"the process ended with {process.returncode}")
        if value := holds():
            return value
        time.sleep(0.02)
    pytest.fail(f"did not hold within {within_s} s")


def start_town(
    root: Path,
    *,
    settings: Mapping[str, str] | None = None,
    environ: dict[str, str] | None = None,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    governed: bool = False,
    module: str = "",
    words: Sequence[str] = (),
) -> RunningTown:
    """Make a town in ``root`` (or use the one that is there) and serve it, on a free port by default.

    ``governed``: by ``borough up``, else by ``townhall``; ``module``: by another program with the same commands;
    ``words``: more of the command line.
    """
    environ = dict(environ or {})
    if not (root / "tinytown.toml").exists():
        run_tool("borough.cli.tt", "init", "--name", root.name.replace("_", "-"), cwd=root, environ=environ)
        for key, written in (settings or {}).items():
            change_town_setting(root, key, written)
    log = root / "server.log"
    name, word = ("borough", "up") if governed else ("townhall", "rest")
    program = f"import sys; from {module or f'borough.cli.{name}'} import main; sys.exit(main())"
    state = root / ".tt" / "server.json"
    state.unlink(missing_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, word, "--bind", "127.0.0.1", "--port", str(port), *words],
            cwd=root,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        until(state.exists, process=process)
        town = RunningTown(
            root=root,
            process=process,
            url=json.loads(state.read_text())["address"],
            token=(root / ".tt" / "operator.token").read_text().strip(),
            log=log,
            environ=environ,
            tls=tls,
        )
        until(lambda: _ready(town), process=process)
    except BaseException:
        process.kill()
        process.wait()
        sys.stderr.write(log.read_text())
        raise
    return town


def _ready(town: RunningTown) -> bool:
    try:
        return town.request("GET", "/ready", token=None).status == 200
    except (OSError, HTTPException):
        return False


def stop_town(town: RunningTown) -> int:
    """Ask the server to stop and return its exit code."""
    if town.process.poll() is None:
        town.process.send_signal(signal.SIGTERM)
    return town.process.wait(timeout=40)


@pytest.fixture(scope="module")
def running_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTown]:
    town = start_town(tmp_path_factory.mktemp("town"))
    yield town
    stop_town(town)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium, one for all tests of a module."""
    from tests.e2e.dashboard import chromium  # noqa: PLC0415 - few of these tests need it

    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: "Browser", town: RunningTown) -> Iterator["Tab"]:
    """A tab that is signed in to a town's dashboard."""
    from tests.e2e.dashboard import Tab  # noqa: PLC0415 - few of these tests need it

    opened = Tab(browser, town)
    yield opened.sign_in()
    opened.close()
