"""Sandboxes from Python against a running fleet, blocking and asynchronous."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from borough.sandbox import AsyncSandbox, CommandFailed, FleetUnavailable, NotAllowed, NothingThere, Refused, Sandbox
from tests.e2e.fleet_programs import KEY, Api, free_port, host_program, program, root_folder

SMALL = {"image": "tiny", "engine": "bubblewrap", "cpu": 1, "memory_mib": 64, "disk_mib": 100}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fleet")
    root_folder(folder / "host" / "images" / "tiny")
    with (
        program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl")) as controller,
        host_program(free_port(), folder / "host", "h1") as host,
    ):
        asking = Api(controller.address)
        asking.data("POST", "/api/hosts", {"addr": host.address}, status=201)
        yield asking


@pytest.fixture
def here(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Api:
    """The controller is the saved one, the key comes from the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TT_API_KEY", KEY)
    (tmp_path / ".ttconfig").write_text(f"{api.address}\n")
    return api


def test_a_sandbox_lives_as_long_as_its_block(here: Api) -> None:
    with Sandbox.create(**SMALL) as sandbox:  # type: ignore[arg-type]  # sizes and names
        heard: list[str] = []
        ran = sandbox.commands.run("echo out; echo err >&2; exit 3", on_stdout=heard.append)
        assert (ran.exit_code, ran.stdout, ran.stderr, "".join(heard)) == (3, "out\n", "err\n", "out\n")
        assert sandbox.commands.run(["cat"], stdin="a b").stdout == "a b"
        assert sandbox.commands.run("echo $X; pwd", env={"X": "y"}, cwd="/tmp").stdout == "y\n/tmp\n"
        with pytest.raises(CommandFailed, match="exit code 7") as failed:
            sandbox.commands.run("exit 7", check=True)
        assert failed.value.result.exit_code == 7
        assert sandbox.files.write("/srv/deep/note.txt", "höhe") == 5
        assert sandbox.files.read("/srv/deep/note.txt") == "höhe"
        assert [(each.name, each.is_dir) for each in sandbox.files.list("/srv")] == [("deep", True)]
        with pytest.raises(NothingThere):
            sandbox.files.read("/srv/nothing")
        again = Sandbox.connect(sandbox.id)
        assert again.vm_id == sandbox.vm_id
        assert again.commands.run("cat /srv/deep/note.txt").stdout == "höhe"
        again.stop()
        assert again.state == "stopped"
        with pytest.raises(Refused):
            again.commands.run("true")
        again.start()
        assert again.files.read("/srv/deep/note.txt") == "höhe"
        again.close()
    assert here.ask("GET", f"/api/envs/{sandbox.id}")[0] == 404
    with pytest.raises(NothingThere):
        Sandbox.connect(sandbox.id)
    sandbox.kill()
    sandbox.close()


def test_a_sandbox_is_cloned_from_a_snapshot(here: Api) -> None:
    with Sandbox.create(**SMALL, env={"SECRET": "s"}) as first:  # type: ignore[arg-type]  # sizes and names
        first.files.write("/srv/note", "kept")
        first.snapshot("good")
        first.files.write("/srv/note", "later")
        with first.clone("good", env={"NAME": "clone"}) as clone:
            assert clone.vm_id != first.vm_id
            assert clone.files.read("/srv/note") == "kept"
            assert clone.commands.run("echo $NAME/$SECRET").stdout == "clone/\n"
            clone.files.write("/srv/note", "of the clone")
            assert first.files.read("/srv/note") == "later"
        with pytest.raises(NothingThere):
            first.clone("none")
        first.restore("good")
        assert first.files.read("/srv/note") == "kept"
    assert here.ask("GET", f"/api/envs/{clone.id}")[0] == 404


@pytest.mark.anyio
async def test_the_asynchronous_one_has_the_same_names(here: Api) -> None:
    async with await AsyncSandbox.create(**SMALL) as sandbox:
        heard: list[str] = []
        ran = await sandbox.commands.run("echo out", on_stdout=heard.append)
        assert (ran.exit_code, ran.stdout, heard) == (0, "out\n", ["out\n"])
        await sandbox.files.write("/srv/a", b"\x00\xff")
        assert await sandbox.files.read_bytes("/srv/a") == b"\x00\xff"
        assert [each.name for each in await sandbox.files.list("/srv")] == ["a"]
        await sandbox.snapshot("good")
        async with await sandbox.clone("good") as clone:
            assert await clone.files.read_bytes("/srv/a") == b"\x00\xff"
        await sandbox.restore("good")
        again = await AsyncSandbox.connect(sandbox.id)
        assert await again.state() == "running"
        await again.close()
    assert here.ask("GET", f"/api/envs/{sandbox.id}")[0] == 404


def test_what_goes_wrong_has_a_type(here: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused) as refused:
        Sandbox.create(image="absent", engine="bubblewrap")
    assert refused.value.code == "unschedulable"
    with pytest.raises(NotAllowed):
        Sandbox.create(image="tiny", api_key="wrong")
    with pytest.raises(FleetUnavailable):
        Sandbox.create(image="tiny", server=f"127.0.0.1:{free_port()}")
    with Sandbox.create(**SMALL) as sandbox, pytest.raises(Refused, match="not published"):  # type: ignore[arg-type]  # as above
        sandbox.address(80)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(FleetUnavailable, match="no controller"):
        Sandbox.create(image="tiny")


def test_the_package_itself_imports_nothing() -> None:
    code = (
        "import sys, borough; loaded = {'asyncio', 'http.client', 'borough.sandbox'} & set(sys.modules); "
        "from borough import Sandbox; print(sorted(loaded), Sandbox.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] Sandbox"
