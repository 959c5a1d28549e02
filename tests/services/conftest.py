"""Fixtures of governance's services."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.services.records_house import Records, open_records


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    async with AsyncExitStack() as undo:
        yield await open_records(tmp_path, undo)
