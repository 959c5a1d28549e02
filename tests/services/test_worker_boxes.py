"""Workers in boxes: what they see, what they reach, and how they end. Each attempt succeeds outside of a box."""

import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.adapters import process
from borough.adapters.engines.bubblewrap_workers.boxes import Program, WorkerBoxes, WorkerBoxSettings
from borough.adapters.launcher import LocalLauncher
from borough.core.errors import Unavailable
from borough.core.ids import AgentId
from borough.town.agents import Confinement, WorkerProcess
from tests.conftest import eventually
from tests.services.townhall_double import State, Townhall, everyone, order

pytestmark = pytest.mark.anyio
GRACE = timedelta(seconds=5)
ATTEMPTS = """
import json, os, socket, sys
from urllib.parse import urlsplit
def tried(act):
    try:
        return act()
    except OSError as failure:
        return f'refused: {failure.strerror or failure}'
root, home, elsewhere, outside = sys.argv[1:5]
server = urlsplit(os.environ['TINYTOWN_SERVER']).netloc
found = {
    'operator': tried(lambda: open(f'{root}/.tt/operator.token').read()),
    'store': tried(lambda: sorted(os.listdir(f'{root}/.tt'))),
    'private': tried(lambda: open(f'{home}/.ssh/id').read()),
    'claude': tried(lambda: open(f'{home}/.claude/settings').read()),
    'remember': tried(lambda: open(f'{home}/.claude/session', 'w').write('kept')),
    'tool': tried(lambda: os.popen('tool').read()),
    'elsewhere': tried(lambda: open(f'{elsewhere}/notes').read()),
    'process': tried(lambda: os.kill(int(outside), 0)),
    'settings': tried(lambda: open(f'{root}/tinytown.toml', 'a').write('# mine')),
    'system': tried(lambda: open('/usr/mine', 'w').write('x')),
    'project': tried(lambda: open(f'{root}/made', 'w').write('by an agent')),
    'tmp': tried(lambda: (open('/tmp/mine', 'w').write('x'), sorted(os.listdir('/tmp')))[1]),
    'shadow': tried(lambda: open('/etc/shadow').read()),
    'privileges': open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0],
    'secrets': [name for name in ('TT_API_KEY', 'REDIS_URL', 'SSH_AUTH_SOCK') if name in os.environ],
    'server': tried(lambda: socket.create_connection(server.split(':')).close()),
}
print('FOUND ' + json.dumps(found), flush=True)
"""
FOLLOWER = "import os,time\nif os.fork()==0:\n os.setsid()\n time.sleep(600)\nprint('off', flush=True)\ntime.sleep(600)"


@pytest.fixture
def town() -> Iterator[Townhall]:
    with Townhall(State(argv=[sys.executable, "-c", FOLLOWER])) as town:
        yield town
        process.reap(everyone(town), grace_s=0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A user's home with a project in it that is a town."""
    home = tmp_path / "home"
    root = home / "project"
    for folder in (root / ".tt", home / ".ssh", home / ".claude", home / ".local/bin", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (root / "tinytown.toml").write_text("name = 'acme'\n")
    (root / ".tt/operator.token").write_text("the operator's")
    (home / ".ssh/id").write_text("a key")
    (home / ".claude/settings").write_text("claude's own")
    (home / ".local/bin/tool").write_text("#!/bin/sh\necho a tool\n")
    (home / ".local/bin/tool").chmod(0o755)
    (tmp_path / "elsewhere/notes").write_text("notes")
    return root


def boxes(root: Path, **more: Any) -> WorkerBoxes:
    home = str(root.parent)
    env = {"PATH": f"{home}/.local/bin:{os.environ['PATH']}"}
    settings: dict[str, Any] = {"write": [f"{home}/.claude", f"{home}/.codex"], "show": [f"{home}/.local/bin"], **more}
    fixed = [root / "tinytown.toml"]
    return WorkerBoxes(WorkerBoxSettings(root=root, state=root / ".tt", home=home, fixed=fixed, **settings), env)


def launching(root: Path, made: WorkerBoxes | None, on_end: Callable[..., None] | None = None) -> LocalLauncher:
    home = str(root.parent)
    secrets = {"TT_API_KEY": "k", "REDIS_URL": "u", "SSH_AUTH_SOCK": "/run/s"}
    env = {**os.environ, **secrets, "HOME": home, "PATH": f"{home}/.local/bin:{os.environ['PATH']}"}
    return LocalLauncher(town_root=root, env=env, boxes=made, on_end=on_end)


async def said(town: Townhall, task_id: str, word: bytes) -> bool:
    log = town.state.logs.get((task_id, 1), b"")
    return word in log and log.endswith(b"\n")


async def found_by_an_agent(town: Townhall, root: Path, made: WorkerBoxes | None) -> dict[str, object]:
    argv = [sys.executable, "-c", ATTEMPTS, str(root), str(root.parent), str(root.parent.parent / "elsewhere")]
    town.state.argv = [*argv, str(os.getpid())]
    launcher = launching(root, made)
    worker = await launcher.launch(order(town, cli="python"))
    given = town.give("look around")
    await eventually(lambda: said(town, given["task_id"], b"FOUND "), within_s=30)
    log = bytes(town.state.logs[given["task_id"], 1])
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    launcher.close()
    found: dict[str, object] = json.loads(log.decode().partition("FOUND ")[2].splitlines()[0])
    return found


async def test_a_worker_sees_its_project_and_neither_the_servers_secrets_nor_the_users(
    town: Townhall, place: Path
) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as of_another:
        inside = await found_by_an_agent(town, place, boxes(place))
    assert inside["project"] == 11
    assert (place / "made").read_text() == "by an agent"
    assert inside["server"] is None
    assert inside["claude"] == "claude's own"
    assert (place.parent / ".claude/session").read_text() == "kept"
    assert inside["tool"] == "a tool\n"
    for hidden in ("operator", "private", "elsewhere", "process", "settings", "system"):
        assert str(inside[hidden]).startswith("refused"), (hidden, inside[hidden])
    assert inside["store"] == ["agents"]
    assert "root:" not in str(inside["shadow"])
    assert "'mine'" in str(inside["tmp"])
    assert Path(of_another.name).name not in str(inside["tmp"])
    assert (inside["privileges"], inside["secrets"]) == ("1", [])


async def test_outside_of_a_box_the_same_attempts_succeed(town: Townhall, place: Path) -> None:
    outside = await found_by_an_agent(town, place, None)
    assert outside["operator"] == "the operator's"
    assert outside["private"] == "a key"
    assert os.geteuid() != 0 or "root:" in str(outside["shadow"])
    assert outside["elsewhere"] == "notes"
    assert outside["process"] is None
    assert outside["settings"] == 6
    assert "operator.token" in str(outside["store"])


async def test_a_box_ends_whole_with_its_worker(town: Townhall, place: Path) -> None:
    ended: list[tuple[AgentId, WorkerProcess, int]] = []
    launcher = launching(place, boxes(place), lambda *what: ended.append(what))
    worker = await launcher.launch(order(town, cli="python"))
    given = town.give("run away")
    await eventually(lambda: said(town, given["task_id"], b"off"))
    (started,) = town.state.starts
    assert (started["pid"], started["started_ticks"]) == (worker.pid, worker.started_ticks)
    assert launcher.confinement(AgentId(town.state.agent_id), 1, worker) == Confinement(boxed=True)
    assert Path(f"/proc/{worker.pid}/ns/pid").readlink() != Path("/proc/self/ns/pid").readlink()
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    assert process.owned(everyone(town)) == []
    assert ended == [(AgentId(town.state.agent_id), worker, 0)]
    assert [how for _, how, _ in town.state.reports] == ["release"]
    assert not (place / ".tt/agents" / town.state.agent_id).exists()
    launcher.close()


async def test_a_worker_killed_by_force_takes_its_box_with_it(town: Townhall, place: Path) -> None:
    ended: list[int] = []
    launcher = launching(place, boxes(place), lambda _agent, _worker, status: ended.append(status))
    worker = await launcher.launch(order(town, cli="python"))
    given = town.give("run away")
    await eventually(lambda: said(town, given["task_id"], b"off"))
    assert len(process.owned(everyone(town))) >= 4
    os.kill(worker.pid, signal.SIGKILL)
    await eventually(lambda: told(ended))
    await eventually(lambda: nobody(town))
    assert ended == [-9]
    launcher.close()


async def told(ended: list[int]) -> bool:
    return bool(ended)


async def nobody(town: Townhall) -> bool:
    return process.owned(everyone(town)) == []


async def test_what_made_a_box_may_die_without_the_worker(town: Townhall, place: Path) -> None:
    ended: list[int] = []
    launcher = launching(place, boxes(place), lambda _agent, _worker, status: ended.append(status))
    worker = await launcher.launch(order(town, cli="python"))
    await eventually(lambda: has_started(town))
    noted = json.loads((place / ".tt/agents" / town.state.agent_id / "1/process.json").read_text())
    os.kill(noted["box"]["pid"], signal.SIGKILL)
    given = town.give("run away")
    await eventually(lambda: said(town, given["task_id"], b"off"))
    assert ended == []
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    assert process.owned(everyone(town)) == []
    assert len(ended) == 1
    launcher.close()


async def has_started(town: Townhall) -> bool:
    return bool(town.state.starts)


async def test_a_later_server_knows_freezes_and_ends_a_boxed_worker(town: Townhall, place: Path) -> None:
    agent = AgentId(town.state.agent_id)
    first = launching(place, boxes(place))
    worker = await first.launch(order(town, cli="python"))
    given = town.give("run away")
    await eventually(lambda: said(town, given["task_id"], b"off"))
    later = launching(place, None)  # as after a restart of the server
    assert later.confinement(agent, 1, worker) == Confinement(boxed=True)
    assert await later.freeze(agent, worker)
    states = {Path(f"/proc/{ref.pid}/stat").read_text().rpartition(")")[2].split()[0] for ref in owned(town)}
    assert states == {"T"}
    await later.end(agent, worker, grace=timedelta(0))
    assert process.owned(everyone(town)) == []
    assert not (place / ".tt/agents" / town.state.agent_id).exists()
    first.close()
    later.close()


def owned(town: Townhall) -> list[process.ProcessRef]:
    return process.owned(everyone(town))


async def test_links_and_folders_that_an_agent_made_lead_its_successors_nowhere(town: Townhall, place: Path) -> None:
    (place / "work").symlink_to(place.parent / ".ssh")
    (place.parent / ".claude/bin").symlink_to(place.parent / ".ssh")
    (place / ".git").write_text(f"gitdir: {place.parent / '.ssh'}\n")
    (place.parent / ".ssh/gitdir").write_text("/elsewhere/.git\n")
    made = boxes(
        place,
        show=[f"{place.parent}/.local/bin", f"{place.parent}/.claude/bin"],
        program=lambda _text: Program(argv=(str(place / "work/id"),), workdir=str(place / "work")),
    )
    inside = await found_by_an_agent(town, place, made)
    assert str(inside["private"]).startswith("refused")


async def test_a_secret_in_the_project_stays_hidden_even_where_its_folder_is_renamed(
    town: Townhall, place: Path
) -> None:
    (place / "certs/private").mkdir(parents=True)
    (place / "certs/private/key.pem").write_text("a private key")
    town.state.argv = ["sh", "-c", "cat certs/private/key.pem; mv certs moved || echo kept; echo over"]
    launcher = launching(place, boxes(place, hidden=[place / "certs/private/key.pem"]))
    worker = await launcher.launch(order(town, cli="python"))
    given = town.give("look")
    await eventually(lambda: said(town, given["task_id"], b"over"))
    log = bytes(town.state.logs[given["task_id"], 1])
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    assert b"a private key" not in log
    assert b"kept" in log
    assert (place / "certs/private/key.pem").read_text() == "a private key"
    launcher.close()


async def test_without_boxes_a_worker_starts_plain_and_says_why_unless_one_is_required(
    town: Townhall, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = AgentId(town.state.agent_id)
    monkeypatch.setattr(
        "borough.adapters.engines.bubblewrap_workers.starting.program", lambda: Path("/nowhere/bubblewrap")
    )
    launcher = launching(place, boxes(place))
    worker = await launcher.launch(order(town, cli="python"))
    known = launcher.confinement(agent, 1, worker)
    assert known is not None
    assert not known.boxed
    assert known.reason is not None
    assert "bubblewrap" in known.reason
    await launcher.end(agent, worker, grace=GRACE)
    strict = launching(place, boxes(place, required=True))
    with pytest.raises(Unavailable) as refused:
        await strict.launch(order(town, 2, cli="python"))
    assert refused.value.code == "launch_failed"
    assert "agent.box auto" in refused.value.resolution
    assert process.owned(everyone(town)) == []
    launcher.close()
    strict.close()


async def test_the_credential_of_a_worker_is_its_own_private_file(town: Townhall, place: Path) -> None:
    launcher = launching(place, boxes(place))
    worker = await launcher.launch(order(town, cli="python"))
    await eventually(lambda: has_started(town))
    own = place / ".tt/agents" / town.state.agent_id / "1"
    assert stat.S_IMODE((own / "token").stat().st_mode) == 0o600
    seen = Path(f"/proc/{worker.pid}/root{own}")
    assert sorted(path.name for path in seen.iterdir()) == ["token", "work"]
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    launcher.close()


async def test_a_worker_has_its_servers_certificate_wherever_that_lies(town: Townhall, place: Path) -> None:
    for folder in (place.parent.parent / "certs", place / ".tt"):
        folder.mkdir(exist_ok=True)
        certificate = folder / "server.pem"
        certificate.write_text("a certificate")
        (folder / "server.key").write_text("its key")
        town.state.starts.clear()
        launcher = launching(place, boxes(place, certificate=certificate, hidden=[folder / "server.key"]))
        worker = await launcher.launch(order(town, cli="python"))
        await eventually(lambda: has_started(town))
        seen = Path(f"/proc/{worker.pid}/root{folder}")
        assert (seen / "server.pem").read_text() == "a certificate"
        assert not (seen / "server.key").exists()
        await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
        launcher.close()
