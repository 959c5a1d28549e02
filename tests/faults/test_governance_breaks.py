"""``agentd`` under what must not harm it: a full disk, garbage at every door, files that are somebody else's."""

import os
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import need
from tests.e2e.conftest import until
from tests.e2e.daemon import RunningDaemon, refused_start, serving

SOMEBODY_ELSE = 65_534


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "t", str(disk)]
    may_mount = os.geteuid() == 0 and shutil.which("mount") and subprocess.run(mount, check=False).returncode == 0
    need(may_mount, "a small file system of its own", "run the tests as root, where mounting is allowed")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Fill the disk to its last block."""
    with path.open("wb", buffering=0) as file:
        for size in (1_048_576, 4096, 1):
            with pytest.raises(OSError, match="No space left"):  # noqa: PT012 - whenever it comes
                while True:
                    file.write(b"x" * size)


def test_on_a_full_disk_acts_are_refused_and_reads_go_on(small_disk: Path, tmp_path: Path) -> None:
    with serving(tmp_path, AGENTD_DATA_DIR=str(small_disk / "data")) as daemon:
        token = (small_disk / "data" / "operator.token").read_text().strip()
        agent_id = daemon.ok("POST", "/agents", {"manifest_yaml": MANIFEST}, token=token)["id"]
        call, memory = f"/agents/{agent_id}/tools/echo", f"/agents/{agent_id}/memory/kept"
        daemon.ok("PUT", memory, {"value": "before"}, token=token)
        assert daemon.request("GET", "/audit/checkpoint", token=token).status == 200
        fill(small_disk / "filler")

        def refused() -> bool:
            answer = daemon.request("POST", call, {"n": 1, "long": "x" * 4000}, token=token)
            assert answer.status in {200, 503}, answer.body
            return answer.status == 503

        until(refused)
        answer = daemon.request("POST", call, {"n": 2}, token=token)
        assert (answer.status, answer.json()["code"]) == (503, "ledger_unavailable")
        assert "full" in answer.body.decode()
        assert daemon.request("PUT", memory, {"value": "after"}, token=token).status == 503
        assert daemon.request("DELETE", f"/agents/{agent_id}", token=token).status == 503
        assert daemon.ok("GET", memory, token=token)["value"] == "before"
        for path in (
            "/health",
            "/agents",
            f"/agents/{agent_id}",
            f"/agents/{agent_id}/audit",
            "/audit/verify",
            "/approvals",
        ):
            assert daemon.request("GET", path, token=token).status == 200, path
        assert daemon.ash("list", "--json").json()[0]["state"] == "Plan"
        assert daemon.ash("tools", "invoke", agent_id, "echo", code=1).err.startswith("error: ")

        (small_disk / "filler").unlink()
        until(lambda: daemon.request("POST", call, {"n": 3}, token=token).status == 200)
        daemon.ok("PUT", memory, {"value": "after"}, token=token)
        assert daemon.ok("GET", "/audit/verify", token=token)["ok"] is True


# -- garbage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with serving(tmp_path_factory.mktemp("agentd")) as daemon:
        yield daemon


def shout(daemon: RunningDaemon, door: str, sent: bytes) -> bytes:
    """Send bytes to a door, say that nothing more will come, and return what it answers until it closes."""
    parts = urlsplit(daemon.url)
    family = socket.AF_INET if door == "http" else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        if door == "http":
            connection.connect((parts.hostname, parts.port))
        else:
            connection.connect(str(daemon.socket) + (".agents" if door == "agents" else ""))
        answer = bytearray()
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except TimeoutError:
            raise
        except OSError:  # it closed before all was said
            return bytes(answer)
    return bytes(answer)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


FRAMES = {
    "nothing": b"",
    "half a length": b"\x00\x00",
    "half a frame": struct.pack(">I", 100) + b'{"Ping"',
    "a length beyond all": b"\xff\xff\xff\xff" + b"x" * 1000,
    "an empty frame": framed(b""),
    "no json": framed(b"{]}"),
    "no text": framed(b"\xff\xfe\x00"),
    "a number": framed(b"7"),
    "two names": framed(b'{"Ping": {}, "Status": {}}'),
    "a nest": framed(b"[" * 100_000),
    "a nest in a field": framed(b'{"ToolInvoke": {"agent_id": "x", "tool_name": "echo", "input": ' + b'{"a":' * 50_000
                                + b"1" + b"}" * 50_000 + b"}}"),
    "a lone surrogate": framed(rb'{"ToolInvoke": {"agent_id": "x", "tool_name": "\ud800", "input": {}}}'),
    "an unknown name": framed(b'"Nonsense"'),
    "a name of 1 MiB": framed(b'"' + b"x" * 1_048_576 + b'"'),
    "a number beyond all": framed(b'{"AuditQuery": {"limit": 1e999}}'),
    "a null where a text is": framed(b'{"AgentInfo": {"agent_id": null}}'),
    "a path": framed(b'{"AgentInfo": {"agent_id": "../../etc/passwd"}}'),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a wrong hello": framed(b'{"Hello": {"nonce": "0"}}'),
    "a hello that is none": framed(b'{"Hello": {"nonce": {"a": []}}}'),
}  # fmt: skip


@pytest.mark.parametrize("door", ["operators", "agents"])
@pytest.mark.parametrize("what", FRAMES)
def test_garbage_at_a_socket_harms_nobody(daemon: RunningDaemon, door: str, what: str) -> None:
    answer = shout(daemon, door, FRAMES[what])
    assert answer == b"" or b'"Error"' in answer, answer[:200]
    assert b"Traceback" not in answer
    assert daemon.ash("ping").out == "pong\n"


REQUESTS = {
    "nothing": b"",
    "noise": bytes(range(256)) * 40,
    "an old request": b"GET /health\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a foreign host": b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a lie about length": b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a broken chunk": b"POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half a body": b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "endless headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a zero byte": b"GET /agents/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an escaped zero byte": b"GET /agents/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no utf-8": b"GET /agents/%ff%fe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    "a frame": framed(b'"Ping"'),
    "tls": bytes.fromhex("16030100f8010000f40303") + b"\x00" * 300,
}  # fmt: skip


@pytest.mark.parametrize("what", REQUESTS)
def test_garbage_at_the_gateway_harms_nobody(daemon: RunningDaemon, what: str) -> None:
    answer = shout(daemon, "http", REQUESTS[what])
    status = answer.split(b" ", 2)[1:2]
    assert answer == b"" or status[0].startswith(b"4"), answer[:200]
    assert b"Traceback" not in answer
    assert daemon.request("GET", "/health", token=None).status == 200


def test_a_head_that_is_too_large_is_refused_however_it_comes(daemon: RunningDaemon) -> None:
    # In one piece: the server reads up to 256 KiB at once, and sees begin and end of it together.
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"
    for _ in range(5):
        answer = shout(daemon, "http", whole)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:200]  # nothing: it closed before all came
    assert daemon.request("GET", "/health", token=None).status == 200


def test_noise_at_every_door_harms_nobody(daemon: RunningDaemon) -> None:
    for _ in range(20):
        noise = secrets.token_bytes(2000)
        for door in ("http", "operators", "agents"):
            shout(daemon, door, noise)
            shout(daemon, door, framed(noise))
    assert daemon.ash("ping").out == "pong\n"
    assert daemon.request("GET", "/health", token=None).status == 200
    assert "Traceback" not in daemon.log


def test_a_crowd_that_says_nothing_does_not_shut_others_out(daemon: RunningDaemon) -> None:
    parts = urlsplit(daemon.url)
    silent = [socket.create_connection((parts.hostname, parts.port)) for _ in range(200)]
    for door in (daemon.socket, Path(f"{daemon.socket}.agents")):
        for _ in range(50):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(str(door))
            silent.append(connection)
    try:
        assert daemon.ash("ping").out == "pong\n"
        assert daemon.request("GET", "/health", token=None).status == 200
    finally:
        for connection in silent:
            connection.close()


# -- files that are not what they should be ----------------------------------------------------------------------------


def test_a_token_database_behind_a_link_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "tokens.db").symlink_to(victim)
    told = refused_start(tmp_path)
    assert "tokens.db is not private" in told
    assert victim.read_text() == "precious"


def test_a_dangling_link_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "tokens.db").symlink_to(tmp_path / "nowhere")
    assert "tokens.db" in refused_start(tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_somebody_else_s_token_database_is_refused(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, who can give files away", "sudo make test")
    database = tmp_path / "tokens.db"
    database.touch(0o600)
    os.chown(database, SOMEBODY_ELSE, SOMEBODY_ELSE)
    told = refused_start(tmp_path)
    assert "tokens.db" in told
    assert str(SOMEBODY_ELSE) in told
    assert database.stat().st_size == 0


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_token_database_that_is_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "tokens.db"
    database.write_bytes(content)
    database.chmod(0o600)
    if content:
        assert "tokens.db" in refused_start(tmp_path)
        assert database.read_bytes() == content
        return
    with serving(tmp_path) as daemon:
        assert daemon.ok("GET", "/tokens") == []


def test_a_token_database_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path):
        database = tmp_path / "tokens.db"
    assert database.stat().st_mode & 0o777 == 0o600
    database.chmod(0o644)
    assert "tokens.db is not private" in refused_start(tmp_path)


def test_a_data_folder_that_is_somebody_else_s_is_refused(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, who can give folders away", "sudo make test")
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, SOMEBODY_ELSE, SOMEBODY_ELSE)
    assert str(folder) in refused_start(tmp_path, AGENTD_DATA_DIR=str(folder))
    assert list(folder.iterdir()) == []


MANIFEST = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: full, version: 1.0.0}
spec:
  trust_level: sandboxed
  capabilities: ["tool.invoke:echo", "memory.read:*", "memory.write:*"]
"""
