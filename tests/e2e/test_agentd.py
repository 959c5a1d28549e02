"""``agentd`` as a process: its environment, its doors, its end; agents that are really confined; and no root needed."""

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import need

SOURCE = Path(__file__).parent.parent.parent / "src"
PYTHON = Path("/usr/bin/python3")
IMPORTED = ":".join([str(SOURCE), *(entry for entry in sys.path if entry.endswith("site-packages"))])
AGENT = textwrap.dedent(
    """
    import sys, time
    from borough.agent import Agent
    with Agent.from_env() as agent:
        agent.transition("plan")
        agent.observe("began", agent.task or "nothing", tags=["start"])
        print("said", agent.invoke_tool("echo", {"n": 1}), flush=True)
        agent.memory_set("state", {"n": 1})
        agent.finish({"n": 1}) if agent.task == "finish" else time.sleep(600)
    """
)


def manifest(name: str, *, program: str | None = None, **spec: Any) -> str:
    run = {} if program is None else {"command": str(PYTHON), "args": ["-c", program], "runtime": "python"}
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {
            "trust_level": "trusted",
            "capabilities": ["tool.invoke:echo", "memory.read:*", "memory.write:*", "obs.append", "obs.query"],
            **run,
            **spec,
        },
    }
    return json.dumps(document)


@dataclass(kw_only=True)
class Daemon:
    folder: Path
    environ: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    url: str = ""
    user: int | None = None
    python: Path = Path(sys.executable)
    said: str = ""
    log: Path = field(default=Path())

    def start(self, **more: str) -> None:
        self.log = self.folder / "agentd.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "borough.cli.agentd"],
                env={**self.environ, **more},
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode()
        assert self.said.startswith("agentd listens on http://"), (self.said, self.log.read_text())
        self.url = self.said.split()[3]

    def stop(self, *, by: signal.Signals = signal.SIGTERM, within_s: float = 40) -> int:
        assert self.process is not None
        self.process.send_signal(by)
        code = self.process.wait(within_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    @property
    def token(self) -> str:
        return (self.data / "operator.token").read_text().strip()

    @property
    def data(self) -> Path:
        return Path(self.environ["AGENTD_DATA_DIR"])

    def request(self, method: str, path: str, body: Any = None, token: str | None = "") -> tuple[int, Any]:
        parts = urlsplit(self.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=data, headers=headers)
            reply = connection.getresponse()
            content = reply.read()
            is_json = (reply.getheader("content-type") or "").startswith("application/json")
            return reply.status, json.loads(content) if is_json and content else content.decode()
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        status, answer = self.request(method, path, body, token)
        assert status < 300, (method, path, status, answer)
        return answer

    def ash(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [self.python, "-m", "borough.cli.ash", *words],
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        if check:
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def until(self, path: str, holds: Any, *, within_s: float = 20) -> Any:
        """Return what ``path`` answers as soon as ``holds`` says so."""
        deadline = time.monotonic() + within_s
        while not holds(found := self.ok("GET", path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


def fresh(folder: Path, *, user: int | None = None) -> Daemon:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(SOURCE),
        "AGENTD_API_ADDR": "127.0.0.1:0",
        "AGENTD_DATA_DIR": str(folder / "data"),
        "AGENTD_API_TOKEN_DB": str(folder / "tokens.db"),
        "SCARAB_SOCKET": str(folder / "run" / "agentd.sock"),
    }
    return Daemon(folder=folder, environ=environ, user=user)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    # Not below pytest's own folder: the path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="agentd") as folder:
        running = fresh(Path(folder))
        running.start()
        yield running
        if running.process is not None and running.process.poll() is None:
            assert running.stop() == 0


def test_it_says_where_it_listens_and_its_owner_s_programs_find_it(daemon: Daemon) -> None:
    assert daemon.request("GET", "/health", token=None)[1]["status"] == "ok"
    assert daemon.request("GET", "/agents", token=None)[0] == 401
    assert json.loads((daemon.data / "server.json").read_text())["address"] == daemon.url
    assert (daemon.data / "operator.token").stat().st_mode & 0o777 == 0o600
    assert daemon.data.stat().st_mode & 0o777 == 0o700
    assert (daemon.folder / "tokens.db").stat().st_mode & 0o777 == 0o600
    assert daemon.ash("ping").stdout == "pong\n"


def test_a_port_that_is_taken_ends_it_at_once_and_names_who_has_it(daemon: Daemon, tmp_path: Path) -> None:
    port = str(urlsplit(daemon.url).port)
    second = fresh(tmp_path)
    environ = second.environ | {"AGENTD_API_ADDR": f"127.0.0.1:{port}", "SCARAB_SOCKET": str(daemon.folder / "b.sock")}
    done = subprocess.run(
        [sys.executable, "-m", "borough.cli.agentd"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert daemon.process is not None
    assert f"port {port} on 127.0.0.1 is in use by pid {daemon.process.pid}" in done.stderr
    assert "AGENTD_API_ADDR" in done.stderr
    assert not (daemon.folder / "b.sock").exists()


def test_a_data_folder_has_one_daemon(daemon: Daemon) -> None:
    environ = daemon.environ | {"SCARAB_SOCKET": str(daemon.folder / "b.sock")}
    done = subprocess.run(
        [sys.executable, "-m", "borough.cli.agentd"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "this data folder is served already" in done.stderr
    assert daemon.url in done.stderr


def test_what_is_wrong_with_the_environment_is_told_in_one_line(tmp_path: Path) -> None:
    environ = fresh(tmp_path).environ | {"AGENTD_API_AUTHZ": "stirct"}
    done = subprocess.run(
        [sys.executable, "-m", "borough.cli.agentd"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the environment variable AGENTD_API_AUTHZ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(daemon: Daemon, by: signal.Signals) -> None:
    agent = daemon.ok("POST", "/agents", {"manifest_yaml": manifest("virtual")})["id"]
    key = daemon.ok("POST", "/tokens", {"name": "ci", "agent_id": agent})["token"]
    assert daemon.stop(by=by) == 0
    assert not (daemon.data / "server.json").exists()
    assert list((daemon.folder / "run").iterdir()) == []
    daemon.start()
    entries = daemon.ok("GET", "/audit?limit=200")
    actions = [entry["action"] for entry in entries]
    assert actions.count("DaemonStart") == 2
    stopped = actions.index("DaemonStop")
    ended = [
        number
        for number, entry in enumerate(entries)
        if entry["action"] == "LifecycleTransition" and entry["data"]["to"] == "Terminate"
    ]
    assert ended
    assert max(ended) < stopped
    assert daemon.ok("GET", "/agents") == []
    assert daemon.ok("GET", f"/agents/{agent}")["state"] == "Terminate"
    assert daemon.request("GET", "/agents", token=key)[0] == 200
    report = daemon.ok("GET", "/audit/verify")
    assert report["ok"], report


def test_tokens_are_kept_by_their_digest_only(daemon: Daemon) -> None:
    agent = daemon.ok("POST", "/agents", {"manifest_yaml": manifest("virtual")})["id"]
    said = daemon.ash("api-key", "create", "--name", "ci", "--agent-id", agent).stdout
    token = next(line.split()[1] for line in said.splitlines() if line.startswith("Token:"))
    assert daemon.request("GET", "/agents", token=token)[0] == 200
    daemon.ash("api-key", "revoke", "ci")
    assert daemon.request("GET", "/agents", token=token)[0] == 401
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.folder / "tokens.db")) as database:
        assert database.execute("SELECT count(*) FROM api_tokens").fetchone()[0] == 1
    everything = b"".join(path.read_bytes() for path in daemon.folder.rglob("*") if path.is_file())
    assert token.encode() not in everything


def test_an_agent_in_its_box_proves_itself_at_the_socket(daemon: Daemon) -> None:
    need(PYTHON.exists(), "a Python of the system, which boxes can see", "apt-get install python3")
    agent = daemon.ok("POST", "/agents", {"manifest_yaml": manifest("boxed", program=AGENT), "task_override": "finish"})
    done = daemon.until(f"/agents/{agent['id']}/result?wait=10", lambda found: found["status"] != "running")
    assert (done["status"], done["result"]) == ("succeeded", {"n": 1}), daemon.ok("GET", f"/agents/{agent['id']}/logs")
    trail = daemon.ok("GET", f"/agents/{agent['id']}/audit")
    own = [entry for entry in trail if entry["agent_id"] == agent["id"] and entry["action"] == "ToolInvoke"]
    assert {(entry["via"], entry["token_name"]) for entry in own} == {("ipc", "socket")}


def test_an_agent_that_outlives_a_killed_daemon_is_adopted_and_speaks_again(daemon: Daemon) -> None:
    need(PYTHON.exists(), "a Python of the system, which boxes can see", "apt-get install python3")
    program = textwrap.dedent(
        """
        import time
        from borough.agent import Agent, SocketError
        try:
            with Agent.from_env() as agent:
                agent.observe("say", "before")
        except SocketError:
            pass  # it is written down, and the daemon was killed before it said so
        while True:
            try:
                with Agent.from_env() as agent:
                    if agent.memory_get("go") is not None:
                        agent.observe("say", "after")
                        agent.finish("spoke")
                        break
            except SocketError:
                pass
            time.sleep(0.05)
        """
    )
    agent = daemon.ok("POST", "/agents", {"manifest_yaml": manifest("lasting", program=program)})["id"]
    daemon.until(f"/agents/{agent}/observations", lambda found: len(found) == 1)
    assert daemon.stop(by=signal.SIGKILL) == -signal.SIGKILL
    daemon.start()
    assert daemon.ok("GET", f"/agents/{agent}")["status"] == "running"
    daemon.ok("PUT", f"/agents/{agent}/memory/go", {"value": True})
    done = daemon.until(f"/agents/{agent}/result?wait=10", lambda found: found["status"] != "running")
    assert done["result"] == "spoke", daemon.ok("GET", f"/agents/{agent}/logs")
    assert [one["result"] for one in daemon.ok("GET", f"/agents/{agent}/observations")] == ["before", "after"]


def test_the_tutorial_works_without_root_and_with_nothing_set() -> None:
    """``agentd &``, ``ash ping``, ``ash spawn``, as an ordinary user who has no session."""
    need(os.geteuid() == 0, "root, who can become somebody else", "sudo make test")
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="agentd") as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        python = _python_of("nobody")
        need(python, "a Python of this version that other users can run", "apt-get install python3")
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": IMPORTED,
            "AGENTD_API_ADDR": "127.0.0.1:0",
        }
        environ["AGENTD_API_TOKEN_DB"] = str(
            home / "tokens.db"
        )  # the shared default may be somebody else's on this machine
        environ["AGENTD_DATA_DIR"] = str(home / ".local" / "state" / "agentd")
        unprivileged = Daemon(folder=home, environ=environ, user=nobody.pw_uid, python=python or PYTHON)
        unprivileged.start()
        try:
            (home / "m.yaml").write_text(manifest("tutorial"))
            assert unprivileged.ash("ping").stdout == "pong\n"
            assert unprivileged.ash("validate", "m.yaml").stdout == "Manifest is valid\n"
            agent = unprivileged.ash("spawn", "m.yaml").stdout.split()[-1]
            assert agent in unprivileged.ash("list").stdout
            invoked = unprivileged.ash("tools", "invoke", agent, "echo", '{"message":"hello"}')
            assert json.loads(invoked.stdout) == {"message": "hello"}
            assert "ToolInvoke" in unprivileged.ash("audit").stdout
            unprivileged.ash("kill", agent)
        finally:
            assert unprivileged.stop() == 0


def _python_of(user: str) -> Path | None:
    """Return a Python that ``user`` can run with all that is imported here, if there is one."""
    for python in (Path(sys.executable), PYTHON):
        try:
            told = subprocess.run(
                [python, "-c", "import borough.daemon, borough.cli.ash"],
                user=user,
                env={"PYTHONPATH": IMPORTED},
                capture_output=True,
                check=False,
                timeout=60,
            )
        except PermissionError:
            continue
        if told.returncode == 0:
            return python
    return None
