"""Identity, ownership and the proven end of processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from borough.adapters import process, procfs
from borough.adapters.process import OWNER, Marker, ProcessRef
from borough.core.errors import Unavailable

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def marker() -> Iterator[Marker]:
    owner = Marker(OWNER, f"{uuid4()}:1")
    yield owner
    process.reap(owner, grace_s=0)


def marked(marker: Marker) -> dict[str, str]:
    return {**os.environ, marker.name: marker.value}


def until(holds: Callable[[], object], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "this did not come true"
        time.sleep(0.01)


def test_a_process_is_known_by_pid_and_start_time(marker: Marker) -> None:
    child = process.start(SLEEP, env=marked(marker))
    assert process.identify(child.pid) == child.ref
    assert process.is_alive(child.ref)
    assert not process.is_alive(ProcessRef(child.pid, child.ref.started_ticks + 1))
    child.popen.kill()
    until(lambda: not process.is_alive(child.ref))  # a zombie is not alive
    assert child.wait() == -9


def test_a_stranger_with_the_same_pid_is_not_ended(marker: Marker) -> None:
    child = process.start(SLEEP, env=marked(marker))
    process.end(ProcessRef(child.pid, child.ref.started_ticks + 1), grace_s=0)
    assert process.is_alive(child.ref)
    process.end(child.ref, grace_s=5)
    assert child.wait() == -15


def test_a_child_leads_its_own_session(marker: Marker) -> None:
    child = process.start(SLEEP, env=marked(marker))
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
    process.end(child.ref, grace_s=5)
    child.wait()


def test_reaping_finds_what_forked_twice_and_left_its_session(marker: Marker, tmp_path: Path) -> None:
    code = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        f"open({str(tmp_path / 'up')!r},'w').close()\ntime.sleep(600)"
    )
    first = process.start(
        [sys.executable, "-c", f"import subprocess,sys; subprocess.run([sys.executable,'-c',{code!r}])"],
        env=marked(marker),
    )
    first.wait()
    until((tmp_path / "up").exists)
    (orphan,) = process.owned(marker)
    assert orphan.pid != first.pid
    process.reap(marker, grace_s=0.1)
    assert process.owned(marker) == []
    assert not process.is_alive(orphan)


def test_reaping_outruns_what_keeps_forking(marker: Marker) -> None:
    code = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "end = time.monotonic() + 20  # by itself it must not go on for ever\n"
        "while time.monotonic() < end:\n if os.fork(): os._exit(0)\n os.setsid(); time.sleep(0.002)"
    )
    child = process.start([sys.executable, "-c", code], env=marked(marker))
    child.wait()
    process.reap(marker, grace_s=0.1)
    assert process.owned(marker) == []


def test_reaping_ends_frozen_processes_too(marker: Marker) -> None:
    child = process.start(SLEEP, env=marked(marker))
    procfs.tell([child.ref], procfs.signal.SIGSTOP)
    process.reap(marker, grace_s=5)
    assert child.wait() == -15


def test_markers_match_whole_values_only(marker: Marker) -> None:
    child = process.start(SLEEP, env={**marked(marker), marker.name: marker.value + "0"})
    assert process.owned(marker) == []
    agent = marker.value.partition(":")[0]
    assert process.owned(Marker(OWNER, f"{agent}:")) == [child.ref]
    assert process.marker_value(child.ref, OWNER) == marker.value + "0"
    process.end(child.ref, grace_s=5)
    child.wait()


def test_a_guard_ends_what_is_marked_once_its_lifeline_ends(marker: Marker) -> None:
    code = (
        "from borough.adapters import process\nfrom borough.adapters.process import Marker\n"
        f"guard=process.start_guard(Marker({marker.name!r},{marker.value!r}))\n"
        f"process.start({SLEEP!r}, env={{{marker.name!r}: {marker.value!r}}})\nprint(guard.pid, flush=True)\n"
        "import time; time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        guard = int(parent.stdout.readline())
        until(lambda: len(process.owned(marker)) == 1)
        parent.kill()
    until(lambda: process.owned(marker) == [])
    until(lambda: process.identify(guard) is None)


def test_a_missing_program_and_a_missing_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as missing:
        process.start(["no-such-program"], env={})
    assert missing.value.code == "program_missing"
    with pytest.raises(Unavailable, match="no such directory") as nowhere:
        process.start(["true"], env=dict(os.environ), cwd=tmp_path / "nowhere")
    assert nowhere.value.code == "launch_failed"


def test_a_server_appends_to_its_log_and_follows_no_link(marker: Marker, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"before\n")
    said = process.start_server(["echo", "up"], env=marked(marker), cwd=tmp_path, log=log)
    assert said.wait() == 0
    assert log.read_bytes() == b"before\nup\n"
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError, match="link"):
        process.start_server(["echo", "up"], env=marked(marker), cwd=tmp_path, log=tmp_path / "link")


def test_no_secret_of_ours_is_inherited() -> None:
    env = {"PATH": "/bin", "REDIS_URL": "x", "BOROUGH_TOKEN_FILE": "y", "MODEL_API_KEY": "z"}
    assert process.without_secrets(env) == {"PATH": "/bin", "MODEL_API_KEY": "z"}


def test_what_keeps_forking_is_seen_by_nearly_every_look(marker: Marker) -> None:
    code = (
        "import os,time\nend = time.monotonic() + 5\n"
        "while time.monotonic() < end:\n if os.fork(): os._exit(0)\n os.setsid(); time.sleep(0.002)"
    )
    process.start([sys.executable, "-c", code], env=marked(marker)).wait()
    assert sum(bool(process.owned(marker)) for _ in range(20)) >= 15
    process.reap(marker, grace_s=0.1)
    assert process.owned(marker) == []
