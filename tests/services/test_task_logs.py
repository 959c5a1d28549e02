"""Task logs on files."""

from pathlib import Path

import pytest

from borough.adapters.task_logs import FileTaskLogs
from borough.core.errors import Conflict, NotFound
from borough.core.ids import TaskId

pytestmark = pytest.mark.anyio
TASK = TaskId("11111111-2222-4333-8444-555555555555")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tasks"


async def test_a_part_that_is_sent_again_is_written_once(root: Path) -> None:
    logs = FileTaskLogs(root)
    assert await logs.append(TASK, 1, offset=0, data=b"one ") == 4
    assert await logs.append(TASK, 1, offset=4, data=b"two ") == 8
    assert await logs.append(TASK, 1, offset=0, data=b"one ") == 8
    assert await logs.append(TASK, 1, offset=4, data=b"two three") == 13
    part = await logs.read(TASK, 1, offset=0, limit=100)
    assert (part.data, part.size, part.epoch) == (b"one two three", 13, 1)


async def test_a_hole_is_refused_with_the_size(root: Path) -> None:
    logs = FileTaskLogs(root)
    await logs.append(TASK, 1, offset=0, data=b"one")
    with pytest.raises(Conflict) as hole:
        await logs.append(TASK, 1, offset=5, data=b"two")
    assert (hole.value.code, hole.value.details) == ("log_hole", {"size": 3})
    assert await logs.append(TASK, 1, offset=0, data=b"") == 3


async def test_reading_pages_and_takes_the_last_lease(root: Path) -> None:
    logs = FileTaskLogs(root)
    for epoch in (2, 10):
        await logs.append(TASK, epoch, offset=0, data=f"lease {epoch}".encode())
    last = await logs.read(TASK, None, offset=0, limit=100)
    assert (last.epoch, last.data) == (10, b"lease 10")
    middle = await logs.read(TASK, 2, offset=3, limit=4)
    assert (middle.data, middle.offset, middle.size) == (b"se 2", 3, 7)
    assert (await logs.read(TASK, 2, offset=9, limit=4)).data == b""


async def test_beyond_the_limit_bytes_are_counted_and_dropped(root: Path) -> None:
    logs = FileTaskLogs(root, limit_bytes=10)
    assert await logs.append(TASK, 1, offset=0, data=b"12345") == 5
    assert await logs.append(TASK, 1, offset=5, data=b"67890abc") == 13
    assert await logs.append(TASK, 1, offset=13, data=b"more") == 17
    assert await logs.append(TASK, 1, offset=5, data=b"67890abc") == 13
    part = await logs.read(TASK, 1, offset=0, limit=1000)
    assert part.data.startswith(b"1234567890\n[the log is full")
    assert part.data.count(b"\n") == 2


async def test_a_log_that_ends_exactly_at_the_limit_is_whole(root: Path) -> None:
    logs = FileTaskLogs(root, limit_bytes=5)
    assert await logs.append(TASK, 1, offset=0, data=b"12345") == 5
    assert (await logs.read(TASK, 1, offset=0, limit=100)).data == b"12345"


async def test_what_is_not_there_is_not_found(root: Path) -> None:
    logs = FileTaskLogs(root)
    with pytest.raises(NotFound) as nothing:
        await logs.read(TASK, None, offset=0, limit=10)
    assert nothing.value.code == "log_not_found"
    await logs.append(TASK, 1, offset=0, data=b"x")
    with pytest.raises(NotFound):
        await logs.read(TASK, 2, offset=0, limit=10)
    with pytest.raises(NotFound):
        await logs.read(TaskId("../../etc"), 1, offset=0, limit=10)


async def test_forgetting_deletes_and_may_be_repeated(root: Path) -> None:
    logs = FileTaskLogs(root)
    await logs.append(TASK, 1, offset=0, data=b"x")
    await logs.forget(TASK)
    await logs.forget(TASK)
    assert list(root.iterdir()) == []


async def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / TASK).symlink_to(outside)
    with pytest.raises(OSError, match=r"[Nn]ot a directory|symbolic"):
        await FileTaskLogs(root).append(TASK, 1, offset=0, data=b"x")
    (root / TASK).unlink()
    (root / TASK).mkdir()
    (root / TASK / "1.log").symlink_to(outside / "victim")
    with pytest.raises(OSError, match="symbolic"):
        await FileTaskLogs(root).append(TASK, 1, offset=0, data=b"x")
    assert list(outside.iterdir()) == []


async def test_a_new_beginning_forgets_every_log(root: Path) -> None:
    logs = FileTaskLogs(root)
    await logs.forget_all()
    await logs.append(TASK, 1, offset=0, data=b"words")
    await logs.forget_all()
    with pytest.raises(NotFound):
        await logs.read(TASK, None, offset=0, limit=10)
