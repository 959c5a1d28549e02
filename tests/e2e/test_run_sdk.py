"""Runs from Python against a running ``borough up``, blocking and asynchronous."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from borough import AsyncRun, Run
from borough.sandbox import Budget, FleetUnavailable, NothingThere, Refused, RunFailed
from borough.sandbox.run_values import Asked
from tests.e2e.conftest import RunningTown, run_tool, until
from tests.e2e.fleet_programs import free_port
from tests.e2e.test_borough_up_fleet import QUIET, data, up

SMALL: Asked = {"image": "local-root", "memory_mib": 64, "disk_mib": 64}


@pytest.fixture(scope="module")
def town() -> Iterator[RunningTown]:
    with up() as running:
        until(lambda: running.request("POST", "/v1/runs?dry_run=1", {"task": "t", **SMALL}).status == 200)
        yield running


@pytest.fixture(autouse=True)
def here(town: RunningTown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's working folder is below the town's, and nothing names a server."""
    below = town.root / "below"
    below.mkdir(exist_ok=True)
    monkeypatch.chdir(below)
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)


def test_a_run_is_followed_to_its_end_and_brings_back_what_it_made(town: RunningTown, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "greeting").write_text("good morning\n")
    script = "cat greeting; echo good night > greeting; printf 'no end of line'"
    with Run.create("greet", command=["sh", "-c", script], source=folder, labels={"by": "sdk"}, **SMALL) as run:
        assert list(run.log()) == ["good morning", "no end of line"]
        info = run.wait(check=True)
        assert (info.state, info.agent_id == "", info.spent.tool_calls) == ("succeeded", False, 0)
        assert run.result is not None
        assert (run.result.answer, run.result.exit_code) == ("no end of line", 0)
        assert [(each.path, each.kind) for each in run.result.files_changed] == [("greeting", "modified")]
        assert "-good morning\n+good night\n" in run.patch()
        assert [entry["action"] for entry in run.ledger() if entry["action"].startswith("Run")][-1] == "RunEnd"
        proof = run.evidence(tmp_path / "proof")
        told = run_tool("borough.cli.borough", "verify", str(proof), cwd=tmp_path).stdout
        assert run.id in told
        assert [each.id for each in Run.list(label="by=sdk")] == [run.id]
        assert Run.list(label="by=sdk", state="failed") == []
    with closing(Run.connect(run.name)) as again:
        assert again.id == run.id
        assert again.state == "succeeded"
        with pytest.raises(Refused) as over:
            again.kill()
        assert over.value.code == "run_over"
        again.cancel()


def test_the_machine_of_a_run_is_reached_while_it_works(town: RunningTown) -> None:
    script = "echo ready; while [ ! -e go ]; do sleep 0.05; done; cat go"
    with Run.create("wait", command=["sh", "-c", script], **SMALL) as run:
        log = run.log()
        assert next(log) == "ready"
        assert run.commands.run(["pwd"], cwd="/workspace").stdout == "/workspace\n"
        run.files.write("/workspace/go", "gone on\n")
        assert list(log) == ["gone on"]
        assert run.wait().state == "succeeded"
        until(lambda: run.info.vm_id is None)
        with pytest.raises(NothingThere, match="no machine"):
            _ = run.files


def test_what_is_under_way_ends_with_its_block(town: RunningTown) -> None:
    with Run.create("long", command=["sleep", "1000"], **SMALL) as run, pytest.raises(TimeoutError):
        run.wait(timeout_s=0.2)
    with closing(Run.connect(run.id)) as again:
        ended = again.wait()
        assert (ended.state, "its program has left it" in (ended.reason or "")) == ("cancelled", True)
    until(lambda: data(town, "/api/envs") == [])


def test_a_run_is_killed_and_quarantined(town: RunningTown) -> None:
    with Run.create("long", command=["sleep", "1000"], **SMALL) as run:
        until(lambda: run.state == "working")
        assert set(run.kill(quarantine=True, reason="look at it").done) >= {"token_revoked", "machine_frozen"}
        ended = run.wait()
        assert (ended.state, ended.quarantined) == ("killed", True)
        machine = town.ok("GET", f"/v1/runs/{run.id}")["machine"]
    town.request("DELETE", f"/api/envs/{machine['env_id']}", timeout_s=60)


def test_the_decision_is_asked_for_alone(town: RunningTown) -> None:
    decided = Run.admission("x", command=["true"], budget=Budget(tool_calls=5), **SMALL)
    assert (decided.ok, decided.engine, decided.budget.tool_calls) == (True, "bubblewrap", 5)
    nowhere = Run.admission("x", command=["true"], isolation="vm", engine="bubblewrap", **SMALL)
    assert not nowhere.ok
    assert any("isolates less" in reason for reason in nowhere.reasons)
    assert Run.list(label="never=was") == []


def test_what_goes_wrong_has_a_type(town: RunningTown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.create("fail", command=["sh", "-c", "echo sorry; exit 3"], **SMALL) as run:
        with pytest.raises(RunFailed, match="exit code 3: sorry") as failed:
            run.wait(check=True)
        assert failed.value.info.result is not None
        assert failed.value.info.result.exit_code == 3
        until(lambda: run.info.vm_id is None)
        run.retry()
        assert run.wait().attempt == 2
    with pytest.raises(Refused) as refused:
        Run.create("x", command=["true"], isolation="vm", engine="bubblewrap", **SMALL)
    assert refused.value.code == "run_refused"
    with pytest.raises(Refused, match="one source"):
        Run.create("x", source=tmp_path, git="https://example.org/a.git")
    with pytest.raises(NothingThere):
        Run.create("x", agent="nobody", **SMALL)
    with pytest.raises(NothingThere):
        Run.connect("run-00000000")
    with pytest.raises(FleetUnavailable):
        Run.list(server=f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FleetUnavailable, match="borough up"):
        Run.list()


def test_the_same_key_is_the_same_run(town: RunningTown) -> None:
    with (
        Run.create("once", command=["true"], key="just-once", **SMALL) as one,
        Run.create("once", command=["true"], key="just-once", **SMALL) as other,
    ):
        assert one.id == other.id
        assert one.wait().state == "succeeded"


@pytest.mark.anyio
async def test_the_asynchronous_one_has_the_same_names(town: RunningTown, tmp_path: Path) -> None:
    script = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"
    async with await AsyncRun.create("greet", command=["sh", "-c", script], **SMALL) as run:
        heard: list[str] = []
        async for line in run.log():
            heard.append(line)
            if line == "one":
                await (await run.files()).write("/workspace/go", "")
        assert heard == ["one", "two"]
        assert (await run.wait(check=True)).name == run.name
        result = await run.result()
        assert result is not None
        assert result.answer == "two"
        assert "go" in await run.patch()
        assert (await run.evidence(tmp_path / "proof")).stat().st_size > 0
    decided = await AsyncRun.admission("x", command=["true"], **SMALL)
    assert decided.ok
    again = await AsyncRun.connect(run.id)
    assert await again.state() == "succeeded"
    await again.close()
    runs = [await AsyncRun.create("long", command=["sleep", "1000"], **SMALL) for _ in range(2)]
    await asyncio.gather(*(each.cancel("enough") for each in runs))
    assert {(await each.wait()).state for each in runs} == {"cancelled"}
    await asyncio.gather(*(each.close() for each in runs))
    until(lambda: data(town, "/api/envs") == [])
    assert threading.active_count() < 40


EXAMPLE = Path(__file__).parents[2] / "examples" / "runs-from-python" / "everywhere.py"


def test_the_example_runs(town: RunningTown, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "word").write_text(f"{folder.name}\n")
    argv = [sys.executable, str(EXAMPLE), "cat word; echo more >> word", *map(str, folders)]
    environ = {**os.environ, **town.environ, "IMAGE": "local-root"}
    told = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout
    for folder in folders:
        assert f"{folder}: {folder.name}\n" in told
    assert told.count("+more\n") == 2


def test_the_asynchronous_one_leaves_out_nothing() -> None:
    names = {name for name in vars(Run) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncRun) if not name.startswith("_")}
