"""A town without a running server gets one, once, and a failing start says why."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from borough.cli.launch import start_detached
from borough.client.autostart import ensure_server
from borough.client.discovery import NoServer, ServerRecord, is_running

SERVER = """
import http.server, json, os, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Ready)
ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
record = {"address": f"http://127.0.0.1:{server.server_port}", "pid": os.getpid(), "started_ticks": ticks}
with open(".tt/server.json.new", "w") as file:
    json.dump(record, file)
os.rename(".tt/server.json.new", ".tt/server.json")
server.serve_forever()
"""


class Town:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".tt").mkdir()
        self.starts = 0
        self.said: list[str] = []

    def start(self, argv: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> int:
        self.starts += 1
        return start_detached(argv, cwd, log, env)

    def ensure(self, code: str = SERVER, *, within_s: float = 20.0) -> ServerRecord:
        return ensure_server(
            self.root,
            argv=[sys.executable, "-c", code],
            env=os.environ,
            start=self.start,
            say=self.said.append,
            within_s=within_s,
        )


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    yield made
    path = tmp_path / ".tt" / "server.json"
    if path.exists():
        document = json.loads(path.read_text())
        record = ServerRecord(**document)
        if is_running(record):
            os.kill(record.pid, signal.SIGKILL)


def test_a_server_is_started_and_said_in_one_line(town: Town) -> None:
    record = town.ensure()
    assert is_running(record)
    assert len(town.said) == 1
    assert record.address in town.said[0]


def test_a_running_server_is_used_and_nothing_is_said(town: Town) -> None:
    first = town.ensure()
    assert town.ensure() == first
    assert (town.starts, len(town.said)) == (1, 1)


def test_two_commands_at_once_start_one_server(town: Town) -> None:
    found: list[ServerRecord] = []
    threads = [threading.Thread(target=lambda: found.append(town.ensure())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert town.starts == 1
    assert len(set(found)) == 1
    assert len(found) == 4


def test_a_server_that_ends_at_once_says_why(town: Town) -> None:
    with pytest.raises(NoServer) as failure:
        town.ensure("import sys; sys.exit('the port is taken')")
    assert failure.value.reason == "the port is taken"
    assert "townhall.log" in (failure.value.resolution or "")


def test_a_server_that_refuses_to_start_is_quoted(town: Town) -> None:
    with pytest.raises(NoServer) as failure:
        town.ensure("import sys; sys.exit('error: port 8080 is taken\\nwhy: pid 7 has it\\nnext: choose another')")
    assert failure.value.reason == "port 8080 is taken; pid 7 has it"


def test_a_dead_servers_record_does_not_stop_a_start(town: Town) -> None:
    (town.root / ".tt" / "server.json").write_text(
        json.dumps({"address": "http://127.0.0.1:1", "pid": os.getpid(), "started_ticks": 1})
    )
    assert is_running(town.ensure())


def test_the_server_outlives_its_starter(town: Town) -> None:
    code = (
        "import os, sys; from pathlib import Path; from borough.client.autostart import ensure_server;"
        "from borough.cli.launch import start_detached;"
        f"ensure_server(Path({str(town.root)!r}), argv=[sys.executable, '-c', sys.stdin.read()], env=os.environ,"
        "start=start_detached, say=print)"
    )
    subprocess.run([sys.executable, "-c", code], input=SERVER, text=True, check=True, capture_output=True)
    assert town.ensure().pid > 0
    assert town.starts == 0


def test_the_log_is_the_owners_alone(town: Town) -> None:
    town.ensure()
    log = town.root / ".tt" / "logs" / "townhall.log"
    assert log.stat().st_mode & 0o077 == 0
