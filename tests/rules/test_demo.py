"""The demonstration's own rules: whose process may be killed, what is asked of a tree, what is told in the end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from borough.cli.demo_report import report
from borough.cli.demo_town import Killed, fitted, fresh_folder, serves
from borough.cli.errors import Failed

AGENT = "aaaa1111-0000-4000-8000-000000000001"


def a_task(**members: object) -> dict[str, object]:
    return {
        "task_id": "bbbb2222-0000-4000-8000-000000000002",
        "description": "List the largest modules\nand more",
        "state": "completed",
        "attempts": 2,
        "agent_id": AGENT,
        "started_at": "2026-01-01T00:00:05.000Z",
        "completed_at": "2026-01-01T00:00:08.500Z",
        **members,
    }


def test_a_process_serves_an_agent_when_its_arguments_name_it() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()", "--agent-id", AGENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    try:
        assert serves(child.pid, AGENT)
        assert not serves(child.pid, AGENT[:-1])
        assert not serves(os.getpid(), AGENT)
    finally:
        child.communicate(b"\n")
    assert not serves(child.pid, AGENT)


def test_paths_that_a_tree_lacks_are_replaced_by_ones_it_has(tmp_path: Path) -> None:
    for path in ("here/one.py", "lib/deep/two.py", ".hidden/three.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    texts = fitted(["Look at `here`.", "Look at `src/borough`.", "Look at `tests`."], tmp_path)
    assert texts == ["Look at `here`.", "Look at `lib/deep`.", "Look at `here`."]


def test_folders_are_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [fresh_folder(None).name, fresh_folder(None).name] == ["demo-1", "demo-2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(Failed):
        fresh_folder(tmp_path)


def test_the_end_tells_who_was_killed_and_how_it_was_made_good(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "one.md").write_text("# One")
    killed = Killed(
        agent="reader-2",
        agent_id="x",
        pid=77,
        task_id="bbbb2222-0000-4000-8000-000000000002",
        at=1767225604.5,
        task=a_task(),
    )
    told = report([a_task()], {AGENT: "reader-1"}, killed, folder=tmp_path, took_s=12.34)
    assert told["recovery"] == (
        "reader-2 (pid 77) was killed with SIGKILL while it worked on task bbbb2222; that attempt failed; attempt 2, "
        "by reader-1, completed the task 4.0 s after the kill"
    )
    assert told["tasks"][0] == {
        "task_id": "bbbb2222-0000-4000-8000-000000000002",
        "state": "completed",
        "attempts": 2,
        "who": "reader-1",
        "took": "3.5 s",
        "description": "List the largest modules",
    }
    assert told["reports"] == [str(tmp_path / "reports" / "one.md")]


def test_an_unfinished_task_is_not_called_recovered(tmp_path: Path) -> None:
    task = a_task(state="running", completed_at=None)
    killed = Killed(agent="r", agent_id="x", pid=1, task_id="bbbb2222", at=time.time(), task=task)
    told = report([task], {}, killed, folder=tmp_path, took_s=1.0)
    assert told["recovery"].endswith("the task is running after 2 attempts")
    assert told["completed"] == 0
