"""A disk that is full to the last block: the ledger refuses, loses nothing, and goes on when there is room."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from borough.core.errors import Unavailable
from tests.conftest import need
from tests.contracts.test_ledger import Store, draft, proven

pytestmark = pytest.mark.anyio


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    may_mount = (
        os.geteuid() == 0 and shutil.which("mount") and mount("-t", "tmpfs", "-o", "size=2m", "t", str(tmp_path))
    )
    need(may_mount, "a small file system of its own", "run the tests as root, where mounting is allowed")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_on_a_full_disk_nothing_acknowledged_is_lost(small_disk: Path) -> None:
    store = await Store.open(small_disk / "data" / "ledger.db")
    acknowledged, refused = [], []
    while not refused:
        appends = (store.ledger.append([draft(detail="x" * 3000)]) for _ in range(10))
        for done in await asyncio.gather(*appends, return_exceptions=True):
            (refused if isinstance(done, BaseException) else acknowledged).append(done)
    for error in refused:
        assert isinstance(error, Unavailable)
        assert error.code == "ledger_unavailable"
        assert "full" in str(error.reason)
        assert str(small_disk) in str(error.resolution)
    assert (await store.ledger.head()).size == len(acknowledged)
    assert mount("-o", "remount,size=20m", str(small_disk))
    await store.ledger.append([draft()])
    assert (await proven(store)).head.size == len(acknowledged) + 1
    again = await store.reopened()
    assert (await proven(again)).head.size == len(acknowledged) + 1
    await again.close()
