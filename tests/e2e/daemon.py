"""Governance as its users start it: ``agentd`` in a process of its own, ``ash``, keys and agents for it."""

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from borough.cli import ash as ash_program
from borough.cli.errors import run
from tests.e2e.conftest import Answer, until

NOBODY = "550e8400-e29b-41d4-a716-446655440000"
"""A good id that no agent has."""
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "governed-agent"
AGENTD = f"{sys.executable} -m borough.cli.agentd".split()

MANIFEST = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: NAME, version: 1.0.0, description: for trying things out}
spec:
  trust_level: TRUST
  capabilities: CAPABILITIES
"""
ALL = ("tool.invoke:*", "fs.read:/workspace/**", "fs.write:/workspace/**", "memory.read:**", "memory.write:**",
       "obs.append", "obs.query")  # fmt: skip


def manifest(name: str, *capabilities: str, trust: str = "sandboxed", more: str = "") -> str:
    """Return a manifest of an agent without a process; ``more`` are further lines of ``spec``."""
    text = MANIFEST.replace("NAME", name).replace("TRUST", trust)
    return text.replace("CAPABILITIES", json.dumps(list(capabilities or ALL))) + more


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(kw_only=True)
class RunningDaemon:
    """An ``agentd``, and how to speak to it."""

    folder: Path
    environ: dict[str, str]
    process: "subprocess.Popen[bytes]"
    url: str
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return Path(self.environ["SCARAB_SOCKET"])

    @property
    def log(self) -> str:
        return (self.folder / "agentd.log").read_text()

    @property
    def operator(self) -> str:
        """The operator's credential, as the daemon has written it."""
        return (self.folder / "data" / "operator.token").read_text().strip()

    def connection(self, *, timeout_s: float = 30) -> HTTPConnection:
        parts = urlsplit(self.url)
        return HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = "", timeout_s: float = 30,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """Send one request; ``token`` '' is the operator's, ``None`` none at all."""
        connection = self.connection(timeout_s=timeout_s)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.operator}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body=data, headers=sent)
            reply = connection.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(status=reply.status, headers=named, body=reply.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send one request that has to succeed; return its JSON."""
        answer = self.request(method, path, body, **more)
        assert answer.status < 300, (method, path, answer.status, answer.body)
        return answer.json() if answer.body else None

    def spawn(self, name: str, *capabilities: str, **more: Any) -> str:
        """Start an agent without a process; return its id."""
        made = self.ok("POST", "/agents", {"manifest_yaml": manifest(name, *capabilities, **more)})
        return str(made["id"])

    def key(self, name: str, agent_id: str = NOBODY, **more: Any) -> str:
        """Make a key and return its token."""
        return str(self.ok("POST", "/tokens", {"name": name, "agent_id": agent_id, **more})["token"])

    def ash(self, *words: str, stdin: str = "", code: int | None = 0) -> Told:
        """Run ``ash`` as its console script does, in this process; it has to end with ``code``."""
        told = shell(*words, environ=self.environ, stdin=stdin)
        assert code is None or told.code == code, (words, told)
        return told

    def entries(self, agent_id: str | None = None, **query: Any) -> list[dict[str, Any]]:
        """Return what is in the ledger, oldest first."""
        wanted = {"limit": 1000, **query} | ({} if agent_id else {"order": "newest"})
        asked = "&".join(f"{name}={value}" for name, value in wanted.items())
        found = self.ok("GET", f"/agents/{agent_id}/audit?{asked}" if agent_id else f"/audit?{asked}")
        return found if isinstance(found, list) else found["entries"]

    def kill(self) -> None:
        """End the daemon as the kernel does: without a word."""
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """Ask the daemon to end; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def restarted(self, **environ: str) -> "RunningDaemon":
        """Return a further daemon over the same folder."""
        return start_daemon(self.folder, {**self.environ, **environ})


@functools.cache
def _sockets() -> str:
    """Return a folder with a short name that lasts as long as this process."""
    made = tempfile.mkdtemp(prefix="bg-", dir="/tmp")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def places(folder: Path) -> dict[str, str]:
    """Return an environment that keeps everything in ``folder``, but for the socket, whose path has to be short."""
    short = Path(tempfile.mkdtemp(prefix="", dir=_sockets()))
    return {
        "AGENTD_DATA_DIR": str(folder / "data"),
        "SCARAB_SOCKET": str(short / "agentd.sock"),
        "AGENTD_API_TOKEN_DB": str(folder / "tokens.db"),
        "AGENTD_API_ADDR": "127.0.0.1:0",
    }


def start_daemon(folder: Path, environ: Mapping[str, str] | None = None) -> RunningDaemon:
    """Start a daemon and wait until it serves."""
    told = {**places(folder), **(environ or {})}
    state = Path(told["AGENTD_DATA_DIR"]) / "server.json"
    state.unlink(missing_ok=True)
    with (folder / "agentd.log").open("ab") as output:
        process = subprocess.Popen(
            AGENTD, env={**os.environ, **told}, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until(state.exists, process=process)
    except BaseException:
        process.kill()
        process.wait()
        sys.stderr.write((folder / "agentd.log").read_text())
        raise
    return RunningDaemon(
        folder=folder, environ=told, process=process, url=json.loads(state.read_text())["address"]
    )  # fmt: skip


def refused_start(folder: Path, **environ: str) -> str:
    """Start a daemon that must not start; return what it says."""
    done = subprocess.run(
        AGENTD, env={**os.environ, **places(folder), **environ}, cwd=folder, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@contextlib.contextmanager
def serving(folder: Path, **environ: str) -> Iterator[RunningDaemon]:
    """Have a daemon for a while; it must end by itself when it is asked to, and have nothing to complain of."""
    daemon = start_daemon(folder, environ)
    try:
        yield daemon
    finally:
        code = daemon.stop()
    assert code == 0, daemon.log
    assert "Traceback" not in daemon.log, daemon.log


def shell(*words: str, environ: Mapping[str, str], stdin: str = "") -> Told:
    """Run ``ash`` as its console script does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run(ash_program.program, "ash", words)
    return Told(code=code, out=out.getvalue(), err=err.getvalue())


def free_port() -> int:
    """Return a port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
