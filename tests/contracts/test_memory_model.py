"""Random lives of a memory, followed by a dictionary. Run on both implementations."""

import asyncio
import tempfile
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from borough.adapters.boards import Boards
from borough.core.errors import Conflict
from borough.core.paging import PageRequest
from borough.governance.memory import MemoryEntry
from borough.governance.ports.records import Memory
from tests.contracts.governance_kit import NOON, House

Answer = TypeVar("Answer")
keys = st.sampled_from(("a", "b/c"))
values = st.sampled_from(("1", '"x"', '{"a": 1}', "null"))
MEANS: dict[str, object] = {"1": 1, '"x"': "x", '{"a": 1}': {"a": 1}, "null": None}
times_to_live = st.sampled_from((None, None, 1, 5))
versions = st.sampled_from((None, 0, 1, 2, 3))


class MemoryModel(RuleBasedStateMachine):
    """Beside the memory: what each key holds, which version it is and when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.at = NOON
        self.model: dict[str, tuple[str, int, Any]] = {}
        self.memory = self.make()

    def make(self) -> Memory:
        return Boards()

    def run(self, step: Awaitable[Answer]) -> Answer:
        async def whole() -> Answer:
            return await step

        return self.loop.run_until_complete(whole())

    def there(self, key: str) -> tuple[str, int]:
        value, version, ends = self.model.get(key, ("null", 0, None))
        return (value, version) if ends is None or self.at < ends else ("null", 0)

    def expect(self, entry: MemoryEntry, key: str, value: str, ttl_s: int | None) -> None:
        ends = None if ttl_s is None else self.at + timedelta(seconds=ttl_s)
        version = self.there(key)[1] + 1
        assert entry == MemoryEntry(key=key, value=value, version=version, updated_at=self.at, expires_at=ends)
        self.model[key] = (value, version, ends)

    @rule(key=keys, value=values, ttl_s=times_to_live, expected=versions)
    def write(self, key: str, value: str, ttl_s: int | None, expected: int | None) -> None:
        attempt = self.memory.write("n", key, value, at=self.at, ttl_s=ttl_s, expected_version=expected)
        if expected not in (None, self.there(key)[1]):
            with pytest.raises(Conflict):
                self.run(attempt)
        else:
            self.expect(self.run(attempt), key, value, ttl_s)

    @rule(key=keys, expected=versions)
    def delete(self, key: str, expected: int | None) -> None:
        attempt = self.memory.delete("n", key, at=self.at, expected_version=expected)
        if expected not in (None, self.there(key)[1]):
            with pytest.raises(Conflict):
                self.run(attempt)
        else:
            assert self.run(attempt) is (self.there(key)[1] > 0)
            self.model.pop(key, None)

    @rule(key=keys, expected=values, new=st.none() | values, ttl_s=times_to_live)
    def swap(self, key: str, expected: str, new: str | None, ttl_s: int | None) -> None:
        attempt = self.memory.swap("n", key, expected=MEANS[expected], new=new, at=self.at, ttl_s=ttl_s)
        if self.there(key)[0] != expected:
            with pytest.raises(Conflict):
                self.run(attempt)
            return
        entry = self.run(attempt)
        if new is None:
            assert entry is None
            self.model.pop(key, None)
        else:
            assert entry is not None
            self.expect(entry, key, new, ttl_s)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)

    @rule()
    def sweep(self) -> None:
        expired = [key for key in self.model if self.there(key)[1] == 0]
        assert self.run(self.memory.sweep(at=self.at, limit=10)) == len(expired)
        for key in expired:
            del self.model[key]

    @invariant()
    def both_hold_the_same(self) -> None:
        alive = sorted(key for key in self.model if self.there(key)[1])
        assert self.run(self.memory.keys("n", at=self.at, page=PageRequest())).items == tuple(alive)
        for key in alive:
            entry = self.run(self.memory.read("n", key, at=self.at))
            assert entry is not None
            assert (entry.value, entry.version) == self.there(key)

    def teardown(self) -> None:
        self.loop.close()


class SqlMemoryModel(MemoryModel):
    """The same, on disk, closed and opened again now and then."""

    def make(self) -> Memory:
        self.folder = tempfile.TemporaryDirectory(prefix="borough-")
        self.house = House(Path(self.folder.name) / "governance.db")
        self.run(self.house.open())
        return self.house.stores.memory

    @rule()
    def restart(self) -> None:
        self.memory = self.run(self.house.reopen()).memory

    def teardown(self) -> None:
        self.run(self.house.close())
        self.folder.cleanup()
        super().teardown()


@pytest.mark.parametrize("machine", [MemoryModel, SqlMemoryModel])
def test_memory_does_what_a_dictionary_would(machine: type[MemoryModel]) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=slow),
    )
