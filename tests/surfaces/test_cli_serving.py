"""``townhall`` and ``borough``: what reaches the server from the command line, and whom the demo may kill."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from borough.cli import borough, townhall
from borough.cli.demo_report import Progress
from borough.cli.demo_town import kill_worker
from borough.cli.errors import run
from borough.client.discovery import ServerAddress
from borough.client.http import Client
from borough.config.fleet import Housing
from tests.surfaces.scripted import Answer, ScriptedServer, agent, problem

Served = list[tuple[Path, str | None, int | None, bool, Housing | None]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, clean: Path) -> Served:
    """What the server was asked to serve; the server itself is tested elsewhere."""
    calls: Served = []
    module = ModuleType("borough.server")

    def serve(
        town_root: Path,
        *,
        bind: str | None,
        port: int | None,
        verbose: bool,
        housing: Housing | None = None,
        worker_box: str | None = None,
        greet: Callable[..., None] | None = None,
    ) -> int:
        assert (greet is None) is (housing is None)
        calls.append((town_root, bind, port, verbose, housing))
        return 7

    module.serve = serve  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "borough.server", module)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (Path(), None, None, False, None)),
        (["rest"], (Path(), None, None, False, None)),
        (["rest", "--bind", "127.0.0.1", "--port", "8080"], (Path(), "127.0.0.1", 8080, False, None)),
        (["-v", "-t", "/srv/t", "rest", "-b", "::1", "-p", "9000"], (Path("/srv/t"), "::1", 9000, True, None)),
    ],
)
def test_townhall_serves_rest_with_what_it_was_told(
    served: Served, words: list[str], expected: tuple[Path, str | None, int | None, bool, None]
) -> None:
    assert run(townhall.program, "townhall", words) == 7
    assert served == [expected]


def test_townhall_refuses_what_is_no_port(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(townhall.program, "townhall", ["rest", "--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert served == []


def test_borough_up_makes_a_town_where_there_is_none_and_serves_it(served: Served, clean: Path) -> None:
    assert run(borough.program, "borough", ["up", "--port", "8099"]) == 7
    assert served == [(clean.resolve(), None, 8099, False, Housing())]
    assert (clean / "tinytown.toml").is_file()
    assert run(borough.program, "borough", ["up", "--image-dir", "/srv/images", "--change-network"]) == 7
    housing = Housing(image_dir=Path("/srv/images"), change_network=True)
    assert served[-1] == (clean.resolve(), None, None, False, housing)


def test_borough_up_serves_the_town_above(served: Served, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(borough.program, "borough", ["up"])
    (clean / "src").mkdir()
    monkeypatch.chdir(clean / "src")
    run(borough.program, "borough", ["up"])
    assert served[-1][0] == clean.resolve()
    assert not (clean / "src" / "tinytown.toml").exists()


def test_what_a_start_can_do_without_is_not_loaded_for_it() -> None:
    """Each is a tenth of the time until the server is ready; they are loaded when somebody needs them."""
    spared = {"rich", "yaml", "tomlkit", "borough.bootstrap.host", "borough.bootstrap.fleet", "argon2", "jwt"}
    code = (
        "import sys; from borough.observability.lean import load_lean; load_lean()\n"
        "import borough.server, borough.bootstrap.governed_town, borough.bootstrap.town_fleet\n"
        f"print(sorted({spared} & set(sys.modules))); import rich"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_borough_bench_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(borough.program, "borough", ["bench"]) == 0
    assert "make bench" in capsys.readouterr().out


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that says in its arguments that it serves the scripted agent."""
    code = "print('up', flush=True); input()"
    argv = [sys.executable, "-c", code, "--agent-id", str(agent()["id"])]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process
    process.kill()
    process.communicate()


def working(pid: int, **members: object) -> dict[str, object]:
    return agent(state="Working", current_task="t-1", host=socket.gethostname(), pid=pid, **members)


def test_the_demo_kills_a_worker_with_a_task_in_hand(server: ScriptedServer, worker: subprocess.Popen[bytes]) -> None:
    found = working(worker.pid)
    server.script[f"GET /v1/agents/{found['id']}"] = found
    with Client(ServerAddress(url=server.url)) as client:
        assert kill_worker(client, [agent(state="Idle")]) is None
        killed = kill_worker(client, [found])
    assert killed is not None
    assert (killed.agent, killed.pid, killed.task_id) == ("ada", worker.pid, "t-1")
    assert worker.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "members",
    [{"id": "aaaa1111-0000-4000-8000-00000000000f"}, {"host": "elsewhere"}, {"current_task": None}, {"pid": 2**22 + 1}],
    ids=["serves another agent", "on another machine", "without a task", "gone"],
)
def test_the_demo_kills_nothing_that_is_not_proven_its_own(
    server: ScriptedServer, worker: subprocess.Popen[bytes], members: dict[str, object]
) -> None:
    found = working(worker.pid) | members
    server.script[f"GET /v1/agents/{found['id']}"] = found
    with Client(ServerAddress(url=server.url)) as client:
        assert kill_worker(client, [found]) is None
    assert worker.poll() is None


def test_progress_tells_events_a_line_each(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"timestamp": "2026-01-01T00:00:00.000Z", "event_type": "task_completed", "message": "done\x1b[2J"}
    answers = iter(
        [Answer(body=f"id: 1\ndata: {json.dumps(event)}\n\n".encode()), problem(403, detail="the key has ended")]
    )
    server.script["GET /v1/events"] = lambda _: next(answers)
    with Client(ServerAddress(url=server.url)) as client, Progress(client) as progress:
        told = ""
        while "no more events" not in told:
            progress.wait(0.05)
            told += capsys.readouterr().err
    assert told.splitlines() == [
        "00:00:00  task_completed          done\\x1b[2J",
        "no more events: the key has ended",
    ]
