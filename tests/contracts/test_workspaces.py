"""The port Workspaces: a base that never changes, what the agent wrote above it, and ways back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.workspaces.layout import Kind, Layout
from borough.adapters.workspaces.snapshots import MOST_PASSING
from borough.core.errors import Conflict, Invalid, NotFound
from borough.core.ids import AgentId
from borough.governance.manifests import Manifest, Workspace
from tests import boxes
from tests.conftest import eventually

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An agent with a workspace, and what its files are."""

    made: Bubblewrap
    agent_id: AgentId
    base: Path
    manifest: Manifest

    async def run(self, code: str) -> str:
        result = await self.made.sandbox.execute(boxes.execution(self.agent_id, self.manifest, code))
        assert result.exit_code == 0, result.stderr
        return result.stdout

    async def keep(self, description: str = "") -> int:
        return (await self.made.workspaces.snapshot(self.agent_id, at=NOON, description=description)).index

    async def diff(self) -> dict[str, str]:
        found = await self.made.workspaces.diff(self.agent_id)
        assert [change.path for change in found] == sorted(change.path for change in found)
        return {change.path.removeprefix("/workspace/"): change.kind.value for change in found}

    async def state(self) -> str:
        """Every path with its content, as the agent sees it."""
        return await self.run(
            "find . -mindepth 1 | sort | while read -r p; do "
            'if [ -L "$p" ]; then echo "$p -> $(readlink "$p")"; elif [ -d "$p" ]; then echo "$p/"; '
            'elif [ -p "$p" ]; then echo "$p pipe"; '
            'else echo "$p $(stat -c %a "$p") $(cat "$p")"; fi; done'
        )


@pytest.fixture(params=["overlay", "copy"])
async def place(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    base = tmp_path / "base"
    (base / "src/deep").mkdir(parents=True)
    (base / "src/main.py").write_text("main")
    (base / "src/deep/er.py").write_text("deeper")
    (base / "read.me").write_text("read me")
    (base / "run").write_text("run")
    (base / "run").chmod(0o755)
    (base / "link").symlink_to("read.me")
    async with boxes.engine(tmp_path, limits=BoxLimits(workspace_bytes=16 * boxes.MIB)) as made:
        made.workspaces._overlays = request.param == "overlay"
        manifest = boxes.manifest(workspace=Workspace(base=str(base)))
        agent_id = boxes.agent()
        await made.workspaces.create(agent_id, manifest)
        note = Layout(tmp_path / "state/workspaces").find(agent_id)[1]
        assert note.kind == (Kind.OVERLAY if request.param == "overlay" else Kind.COPY)
        before = photograph(base)
        yield Place(made=made, agent_id=agent_id, base=base, manifest=manifest)
        assert photograph(base) == before


def photograph(folder: Path) -> list[tuple[str, int, bytes]]:
    return [
        (str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    ]


async def test_a_fresh_workspace_differs_in_nothing(place: Place) -> None:
    assert await place.diff() == {}
    assert await place.made.workspaces.history(place.agent_id) == ()
    await place.run("cat src/main.py > /dev/null; ls -lR > /dev/null")
    assert await place.diff() == {}


async def test_the_diff_says_what_was_added_modified_and_deleted(place: Place) -> None:
    await place.run("echo x > new; mkdir dir; echo y > dir/in; echo z >> src/main.py; rm read.me; chmod 700 run")
    assert await place.diff() == {
        "dir": "added", "dir/in": "added", "new": "added", "read.me": "deleted", "run": "modified",
        "src/main.py": "modified",
    }  # fmt: skip


async def test_what_was_changed_back_is_no_change(place: Place) -> None:
    await place.run("cp -p run keep; echo x > run; cat keep > run; rm keep; mv src/main.py a; mv a src/main.py")
    await place.run("rm -r src/deep; mkdir src/deep; printf deeper > src/deep/er.py; rm link; ln -s read.me link")
    assert await place.diff() == {}


async def test_folders_that_were_replaced_hide_what_was_in_them(place: Place) -> None:
    await place.run("rm -r src; mkdir src; echo o > src/other")
    assert await place.diff() == {
        "src/deep": "deleted", "src/deep/er.py": "deleted", "src/main.py": "deleted", "src/other": "added",
    }  # fmt: skip
    await place.run("rm -r src; echo file > src")
    assert await place.diff() == {
        "src": "modified", "src/deep": "deleted", "src/deep/er.py": "deleted", "src/main.py": "deleted",
    }  # fmt: skip


async def test_changes_count_from_the_last_snapshot(place: Place) -> None:
    await place.run("echo 1 > a; rm read.me")
    assert await place.keep("first") == 0
    assert await place.diff() == {}
    await place.run("echo 2 > a; echo 3 > b; echo back > read.me")
    assert await place.diff() == {"a": "modified", "b": "added", "read.me": "added"}
    await place.made.workspaces.commit(place.agent_id, at=NOON, description="done")
    assert await place.diff() == {}
    history = await place.made.workspaces.history(place.agent_id)
    assert [(one.index, one.description, one.created_at) for one in history] == [(0, "first", NOON), (1, "done", NOON)]
    assert history[0].size_bytes == 2


async def test_rolling_back_restores_everything(place: Place) -> None:
    await place.run(
        "echo 1 > a; mkdir -p d/e; echo 2 > d/e/f; chmod 750 a; rm link; ln -s /etc/hosts link; rm -r src/deep"
    )
    then = await place.state()
    index = await place.keep()
    await place.run(
        "rm -r d a; mkdir a; echo x > a/b; echo changed > src/main.py; rm run; echo n > new; mkdir src/deep; "
        "echo y > src/deep/z; rm link; mkdir link; mkfifo link/pipe"
    )
    assert await place.state() != then
    back = await place.made.workspaces.rollback(place.agent_id, index)
    assert back.index == index
    assert await place.state() == then
    assert await place.diff() == {}
    assert await place.run("echo more >> a; cat a") == "1\nmore\n"  # it is the agent's own


async def test_a_running_agent_sees_the_restored_state(place: Place) -> None:
    index = await place.keep()
    of = boxes.manifest(
        "/bin/sh", "-c", "echo x > read.me; rm run; echo n > new; ls > /dev/null; : > ready; "
        "while [ -e ready ]; do sleep 0.01; done; cat read.me; ls", workspace=place.manifest.workspace,
    )  # fmt: skip
    order = boxes.order(place.agent_id, of)
    await place.made.runner.start(order)

    async def ready() -> bool:
        return len(await place.made.files.listing(place.agent_id, "/workspace", glob="ready", limit=1)) == 1

    await eventually(ready)
    await place.made.runner.pause(place.agent_id)
    await place.made.workspaces.rollback(place.agent_id, index)
    await place.made.runner.resume(place.agent_id)
    assert (await place.made.runner.exited(place.agent_id)).well
    said = await place.made.runner.logs(place.agent_id, order.run_id, offset=0, limit=999)
    assert said == b"read melink\nread.me\nrun\nsrc\n"


async def test_an_unknown_snapshot_changes_nothing(place: Place) -> None:
    await place.run("echo 1 > a")
    before = await place.state()
    with pytest.raises(NotFound) as missing:
        await place.made.workspaces.rollback(place.agent_id, 7)
    assert missing.value.code == "snapshot_not_found"
    assert await place.state() == before


async def test_equal_contents_are_kept_once(place: Place, tmp_path: Path) -> None:
    await place.run("for i in 1 2 3; do head -c 100000 /dev/zero > f$i; done")
    await place.keep()
    await place.run("cp f1 f4")
    await place.keep()
    objects = list((tmp_path / "state/workspaces" / place.agent_id / "objects").iterdir())
    assert [path.stat().st_size for path in objects] == [100_000]


async def test_only_so_many_passing_snapshots_are_kept_and_all_lasting_ones(place: Place, tmp_path: Path) -> None:
    await place.made.files.write(place.agent_id, "/workspace/n", b"first", append=False)
    await place.made.workspaces.commit(place.agent_id, at=NOON, description="lasting")
    for number in range(MOST_PASSING + 3):
        await place.made.files.write(place.agent_id, "/workspace/n", str(number).encode(), append=False)
        await place.keep()
    indices = [one.index for one in await place.made.workspaces.history(place.agent_id)]
    assert indices == [0, *range(4, MOST_PASSING + 4)]
    objects = list((tmp_path / "state/workspaces" / place.agent_id / "objects").iterdir())
    assert len(objects) == MOST_PASSING + 1
    await place.made.workspaces.rollback(place.agent_id, 0)
    assert (await place.made.files.read(place.agent_id, "/workspace/n", limit=9)).content == b"first"


async def test_too_large_a_snapshot_is_refused(place: Place) -> None:
    for name in ("a", "b", "c"):
        await place.made.files.write(place.agent_id, f"/workspace/{name}", bytes(7 * boxes.MIB), append=False)
    with pytest.raises(Conflict) as refused:
        await place.keep()
    assert refused.value.code == "workspace_too_large"
    assert await place.made.workspaces.history(place.agent_id) == ()


async def test_links_of_the_base_lead_nobody_astray(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_text("secret")
    place.base.joinpath("out").symlink_to(tmp_path / "elsewhere")
    try:
        await place.run("rm -f out; mkdir out; echo mine > out/secret")
        assert (await place.diff()).get("out/secret") == "added"
        index = await place.keep()
        await place.run("rm -r out")
        await place.made.workspaces.rollback(place.agent_id, index)
        assert await place.run("cat out/secret") == "mine\n"
        assert (tmp_path / "elsewhere/secret").read_text() == "secret"
    finally:
        place.base.joinpath("out").unlink()


async def test_making_is_idempotent_and_discarding_too(place: Place, tmp_path: Path) -> None:
    await place.run("echo 1 > a; mkdir -p x/y")
    await place.made.workspaces.create(place.agent_id, place.manifest)
    assert "a" in await place.diff()
    await place.keep()
    for _ in range(2):
        await place.made.workspaces.discard(place.agent_id)
    assert not (tmp_path / "state/workspaces" / place.agent_id).exists()
    with pytest.raises(NotFound) as gone:
        await place.made.workspaces.diff(place.agent_id)
    assert gone.value.code == "agent_not_found"
    await place.made.workspaces.create(place.agent_id, place.manifest)
    assert await place.diff() == {}


async def test_workspaces_of_two_agents_are_apart(place: Place) -> None:
    other = boxes.agent()
    await place.made.workspaces.create(other, place.manifest)
    await place.run("echo mine > a; rm run")
    assert list(await place.made.workspaces.diff(other)) == []
    seen = await place.made.sandbox.execute(boxes.execution(other, place.manifest, "ls"))
    assert seen.stdout == "link\nread.me\nrun\nsrc\n"


async def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with boxes.engine(tmp_path) as made:
        for base in (str(tmp_path / "none"), str(tmp_path / "file"), "relative", "/"):
            with pytest.raises(Invalid) as refused:
                await made.workspaces.create(boxes.agent(), boxes.manifest(workspace=Workspace(base=base)))
            assert refused.value.code == "workspace_base"


async def test_a_base_whose_name_is_strange_is_laid_under_all_the_same(tmp_path: Path) -> None:
    base = tmp_path / "a,b:c\\d e"
    base.mkdir()
    (base / "f").write_text("x")
    async with boxes.engine(tmp_path) as made:
        agent_id, manifest = boxes.agent(), boxes.manifest(workspace=Workspace(base=str(base)))
        await made.workspaces.create(agent_id, manifest)
        assert (await made.files.read(agent_id, "/workspace/f", limit=1)).content == b"x"
        assert Layout(tmp_path / "state/workspaces").find(agent_id)[1].kind is Kind.OVERLAY
        assert [path.name for path in base.iterdir()] == ["f"]
