"""The port Files: what the agent sees and nothing else, no link followed, whole or not at all."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.workspaces import opening
from borough.core.errors import BoroughError, Conflict, Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.manifests import Workspace
from borough.governance.trust import TrustLevel
from tests import boxes
from tests.conftest import eventually
from tests.contracts.tools_kit import PLACES, Tools, in_machines

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["host", "host over a base", "machine"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def made(tmp_path: Path, place: str) -> AsyncIterator[Tools]:
    async with PLACES[place.partition(" ")[0]](tmp_path) as made:
        yield made


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Bubblewrap]:
    async with boxes.engine(tmp_path, limits=BoxLimits(file_bytes=boxes.MIB)) as made:
        yield made


@pytest.fixture
async def ada(made: Tools, tmp_path: Path, place: str) -> AgentId:
    base = tmp_path / "base"
    (base / "sub").mkdir(parents=True)
    (base / "sub" / "old.txt").write_text("from the base")
    agent_id = boxes.agent()
    over = Workspace(base=str(base)) if place.endswith("base") else Workspace()
    await made.create(agent_id, boxes.manifest(workspace=over))
    if not place.endswith("base"):
        await made.files.write(agent_id, "/workspace/sub/old.txt", b"from the base", append=False)
    return agent_id


async def run(made: Tools, agent_id: AgentId, code: str) -> str:
    result = await made.sandbox.execute(boxes.execution(agent_id, boxes.manifest(), code))
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def refused(doing: "asyncio.Future[object] | object", kind: type[BoroughError], code: str) -> None:
    with pytest.raises(kind) as failed:
        await doing  # type: ignore[misc] # a coroutine
    assert failed.value.code == code


async def test_what_was_written_is_read_in_part_or_whole(made: Tools, ada: AgentId) -> None:
    assert await made.files.write(ada, "/workspace/a/b/c.txt", b"hello", append=False) == 5
    found = await made.files.read(ada, "/workspace/a/b/c.txt", limit=3)
    assert (found.content, found.size) == (b"hel", 5)
    assert await made.files.write(ada, "/workspace/a/b/c.txt", b" you", append=True) == 4
    assert (await made.files.read(ada, "/workspace/a/b/c.txt", limit=99)).content == b"hello you"
    assert await made.files.write(ada, "/workspace/new.txt", b"x", append=True) == 1
    assert (await made.files.read(ada, "/workspace/sub/old.txt", limit=99)).content == b"from the base"


async def test_agent_and_tools_see_the_same(made: Tools, ada: AgentId, tmp_path: Path) -> None:
    await made.files.write(ada, "/workspace/sub/new.txt", b"1", append=False)
    await made.files.write(ada, "/workspace/sub/old.txt", b"2", append=False)
    assert (
        await run(made, ada, "cat sub/new.txt sub/old.txt; echo 3 > sub/new.txt; echo 4 >> sub/old.txt; rm -r sub")
        == "12"
    )
    await refused(made.files.read(ada, "/workspace/sub/old.txt", limit=9), NotFound, "file_not_found")
    await made.files.write(ada, "/workspace/sub/other.txt", b"5", append=False)
    assert await run(made, ada, "ls sub") == "other.txt\n"
    assert (tmp_path / "base/sub/old.txt").read_text() == "from the base"


async def test_an_agent_changes_files_of_its_base_without_changing_the_base(
    made: Tools, ada: AgentId, tmp_path: Path
) -> None:
    assert await run(made, ada, "echo more >> sub/old.txt; mv sub/old.txt sub/moved.txt; cat sub/moved.txt") == (
        "from the basemore\n"
    )
    assert await made.files.delete(ada, "/workspace/sub/moved.txt")
    assert sorted(path.name for path in (tmp_path / "base").rglob("*")) == ["old.txt", "sub"]
    assert (tmp_path / "base/sub/old.txt").read_text() == "from the base"


async def test_listing_is_in_order_and_by_pattern(made: Tools, ada: AgentId) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        await made.files.write(ada, f"/workspace/{name}", b"xy", append=False)
    every = await made.files.listing(ada, "/workspace", glob=None, limit=10)
    assert [(entry.name, entry.is_dir) for entry in every] == [
        ("a.txt", False), ("b.txt", False), ("c.md", False), ("sub", True),
    ]  # fmt: skip
    assert (every[0].path, every[0].size) == ("/workspace/a.txt", 2)
    some = await made.files.listing(ada, "/workspace", glob="*.txt", limit=1)
    assert [entry.name for entry in some] == ["a.txt"]
    await refused(made.files.listing(ada, "/workspace/a.txt", glob=None, limit=1), Conflict, "not_a_directory")
    await refused(made.files.listing(ada, "/workspace/zz", glob=None, limit=1), NotFound, "file_not_found")


async def test_folders_are_neither_read_nor_written_nor_deleted(made: Tools, ada: AgentId) -> None:
    for path in ("/workspace", "/workspace/sub"):
        await refused(made.files.read(ada, path, limit=1), Conflict, "is_a_directory")
        await refused(made.files.write(ada, path, b"x", append=False), Conflict, "is_a_directory")
        await refused(made.files.write(ada, path, b"x", append=True), Conflict, "is_a_directory")
        await refused(made.files.delete(ada, path), Conflict, "is_a_directory")
    await refused(made.files.read(ada, "/workspace/sub/old.txt/deeper", limit=1), NotFound, "file_not_found")


async def test_deleting_tells_whether_there_was_something(made: Tools, ada: AgentId) -> None:
    assert await made.files.delete(ada, "/workspace/sub/old.txt") is True
    assert await made.files.delete(ada, "/workspace/sub/old.txt") is False
    assert await made.files.delete(ada, "/workspace/no/such") is False
    assert await run(made, ada, "ls sub") == ""


async def test_no_link_is_followed_on_the_way_or_at_its_end(made: Tools, ada: AgentId, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    await run(made, ada, f"ln -s {tmp_path}/secret file; ln -s {tmp_path} way; ln -s sub inner; ln -s .. up")
    for path in ("file", "way/secret", "inner/old.txt", "up/etc/passwd"):
        await refused(made.files.read(ada, f"/workspace/{path}", limit=9), Forbidden, "outside_workspace")
        await refused(made.files.write(ada, f"/workspace/{path}", b"x", append=True), Forbidden, "outside_workspace")
    for path in ("way/secret", "inner/old.txt"):
        await refused(made.files.write(ada, f"/workspace/{path}", b"x", append=False), Forbidden, "outside_workspace")
        await refused(made.files.delete(ada, f"/workspace/{path}"), Forbidden, "outside_workspace")
    assert await made.files.delete(ada, "/workspace/file")  # the link itself goes
    assert (tmp_path / "secret").read_text() == "secret"


async def test_pipes_and_sockets_are_not_opened(made: Tools, ada: AgentId) -> None:
    await run(made, ada, "mkfifo pipe")
    async with asyncio.timeout(60):
        await refused(made.files.read(ada, "/workspace/pipe", limit=1), Conflict, "not_a_file")
        await refused(made.files.write(ada, "/workspace/pipe", b"x", append=True), Conflict, "not_a_file")


async def test_a_file_has_a_largest_size(made: Tools, ada: AgentId) -> None:
    await refused(made.files.write(ada, "/workspace/big", b"x" * (boxes.MIB + 1), append=False), Conflict, "disk_full")
    await made.files.write(ada, "/workspace/big", b"x" * boxes.MIB, append=False)
    await refused(made.files.write(ada, "/workspace/big", b"y", append=True), Conflict, "disk_full")
    assert (await made.files.read(ada, "/workspace/big", limit=1)).size == boxes.MIB


async def test_writing_leaves_no_draft_and_keeps_the_mode(made: Tools, ada: AgentId) -> None:
    await run(made, ada, "echo x > tool; chmod 750 tool")
    await made.files.write(ada, "/workspace/tool", b"y", append=False)
    assert await run(made, ada, "stat -c '%a' tool; test -O tool && ls -A") == ("750\nsub\ntool\n")


async def test_a_call_into_a_frozen_machine_is_made_when_it_goes_on(tmp_path: Path) -> None:
    async with in_machines(tmp_path) as made:
        ada = boxes.agent()
        await made.create(ada, boxes.manifest())
        (machine,) = made.made
        await made.driver.pause(machine)
        writing = asyncio.create_task(made.files.write(ada, "/workspace/a", b"x", append=False))
        await asyncio.wait({writing}, timeout=0.3)
        assert not writing.done()
        await made.driver.start(made.orders[machine])
        assert await writing == 1
        assert (await made.files.read(ada, "/workspace/a", limit=9)).content == b"x"


async def test_an_agent_without_a_workspace_is_unknown(made: Tools) -> None:
    await refused(made.files.read(boxes.agent(), "/workspace/x", limit=1), NotFound, "agent_not_found")


# -- outside of the workspace ------------------------------------------------------------------------------------------


async def with_scopes(here: Bubblewrap, trust: TrustLevel, *capabilities: str) -> AgentId:
    agent_id = boxes.agent()
    await here.workspaces.create(agent_id, boxes.manifest(trust=trust, capabilities=capabilities))
    return agent_id


async def test_lower_levels_see_what_their_scopes_name_and_no_more(here: Bubblewrap, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("A")
    (tmp_path / "other").write_text("B")
    agent_id = await with_scopes(here, TrustLevel.SANDBOXED, f"fs.read:{data}/**", f"fs.write:{data}/**")
    assert (await here.files.read(agent_id, f"{data}/a.txt", limit=9)).content == b"A"
    for path in (f"{tmp_path}/other", "/etc/passwd", "/tmp/x", "/"):
        await refused(here.files.read(agent_id, path, limit=9), Forbidden, "outside_workspace")
    await refused(here.files.write(agent_id, f"{data}/b.txt", b"x", append=False), Forbidden, "outside_workspace")
    shown = boxes.manifest(capabilities=(f"fs.read:{data}/**",))
    result = await here.sandbox.execute(
        boxes.execution(agent_id, shown, f"cat {data}/a.txt; echo x > {data}/b || echo no")
    )
    assert result.stdout == "Ano\n"


async def test_trusted_agents_read_the_host_but_never_secret_places(here: Bubblewrap, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("A")
    agent_id = await with_scopes(here, TrustLevel.TRUSTED, "fs.read", f"fs.write:{data}/**", "fs.write:/usr/**")
    assert (await here.files.read(agent_id, f"{data}/a.txt", limit=9)).content == b"A"
    assert await here.files.write(agent_id, f"{data}/deep/b.txt", b"B", append=False) == 1
    assert (data / "deep/b.txt").read_bytes() == b"B"
    hidden = (f"{tmp_path}/state/keeper.log", "/proc/self/environ", "/sys/kernel/mm", "/dev/null")
    for path in hidden:
        await refused(here.files.read(agent_id, path, limit=9), Forbidden, "outside_workspace")
    for path in ("/usr/x", "/etc/x", f"{tmp_path}/other", "/run/x", f"{tmp_path}/state/x"):
        await refused(here.files.write(agent_id, path, b"x", append=False), Forbidden, "outside_workspace")
        await refused(here.files.delete(agent_id, path), Forbidden, "outside_workspace")


# -- races -------------------------------------------------------------------------------------------------------------


async def test_a_folder_swapped_for_a_link_all_the_time_never_leads_out(
    made: Tools, ada: AgentId, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "f").write_text("secret")
    code = (
        f"import os,shutil\nif not os.path.exists({str(tmp_path)!r}):\n"
        f" os.makedirs({str(outside)!r}); open('{outside}/f','w').write('secret')  # in a machine of its own\n"
        "os.mkdir('real'); open('real/f','w').write('mine')\n"
        f"os.symlink({str(outside)!r}, 'link'); open('stop','w')\n"
        "def swap(name):\n"
        " try: os.rename(name,'way'); os.rename('way',name)\n"
        " except OSError: shutil.rmtree('way', ignore_errors=True)  # a writer made the folder meanwhile\n"
        "while os.path.exists('stop'): swap('real'); swap('link')\n"
    )
    racing = asyncio.create_task(
        made.sandbox.execute(boxes.execution(ada, boxes.manifest(), code, runtime="python3", timeout_s=60))
    )

    async def begun() -> bool:
        return len(await made.files.listing(ada, "/workspace", glob="stop", limit=1)) == 1

    await eventually(begun)
    outcomes: dict[str, int] = {}
    for _ in range(5000):
        try:
            found = (await made.files.read(ada, "/workspace/way/f", limit=99)).content
            assert found in (b"mine", b"x"), found
            outcomes["read"] = outcomes.get("read", 0) + 1
            await made.files.write(ada, "/workspace/way/f", b"x", append=False)
        except BoroughError as failure:
            outcomes[failure.code] = outcomes.get(failure.code, 0) + 1
        if min(outcomes.get("read", 0), outcomes.get("outside_workspace", 0)) >= 20:
            break
    await made.files.delete(ada, "/workspace/stop")
    assert (await racing).exit_code == 0
    assert (outside / "f").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["f"]
    seen = await run(made, ada, f"cd {outside} 2>/dev/null && cat f && ls || echo not there")
    assert seen in ("secretf\n", "not there\n")
    assert outcomes.get("outside_workspace", 0) > 0, outcomes  # the race was really run


@pytest.mark.parametrize("way", [opening._named, opening.walked])
def test_both_ways_to_open_refuse_the_same(way: object, tmp_path: Path) -> None:
    assert callable(way)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("x")
    (tmp_path / "in/link").symlink_to("file")
    (tmp_path / "over").symlink_to("in")
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(way(root, "in/file"))
        os.close(way(root, "in/link"))  # named itself, not followed
        for path in ("over/file", "../x", "in/../in/../../x"):
            with pytest.raises(OSError):
                way(root, path)
        with pytest.raises(FileNotFoundError):
            way(root, "in/none")
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(opening.LinkOnTheWay):
            way(root, "over/file")
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        os.close(root)
