"""The routes of pools: what they take, refuse and show, on a real store without machines."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from borough.adapters.sql.pools import SqlPools
from borough.fleet.vms import VmId, VmState
from borough.http.pools.routes import OPERATIONS, PoolsState
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from borough.pools.pools import Machine, Use
from borough.pools.scaling import Decision, Failure
from borough.pools.services.autoscaler import Seen
from borough.pools.services.pools import PoolService
from borough.pools.services.telling import Telling
from tests.surfaces.asgi import Got, ask
from tests.surfaces.demo import as_, authenticate, grant_is_live

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)


@dataclass
class Told:
    """Where the town's events go."""

    events: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> str:
        assert message
        self.events.append((event_type, subjects))
        return "1-0"


@dataclass
class House:
    """The routes over a store of their own, and what a pass saw last."""

    table: OperationTable
    store: SqlPools
    told: Told
    telling: Telling
    seen: Seen

    async def ask(self, method: str, path: str, body: Any = None, *, who: str = "admin") -> Got:
        return await ask(self.table, method, path, json=body, headers=as_(who))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store, told, seen = await SqlPools.open(tmp_path / "pools.db"), Told(), Seen()
    telling = Telling(store, told)  # type: ignore[arg-type]  # it only appends
    state = PoolsState(pools=PoolService(store, telling, seen=lambda: seen))
    surface = Surface(operations=OPERATIONS, state=state, authenticate=authenticate, grant_is_live=grant_is_live)
    yield House(OperationTable([surface], Policies()), store, told, telling, seen)
    await store.close()


async def test_a_pool_is_set_shown_changed_and_deleted(house: House) -> None:
    made = await house.ask("PUT", "/v1/pools/coder", {"command": ["cat"], "max": 3})
    assert made.status == 201
    shown = made.json()
    assert (shown["image"], shown["engine"], shown["command"], shown["state"]) == (
        "host",
        "bubblewrap",
        ["cat"],
        "active",
    )
    assert (shown["min"], shown["max"], shown["warm"], shown["desired"], shown["machines"]) == (0, 3, 0, None, [])
    changed = await house.ask("PUT", "/v1/pools/coder", {"command": ["cat"], "max": 5})
    assert (changed.status, changed.json()["max"]) == (200, 5)
    assert (await house.store.pool("coder")).generation == 1, "its machines are made as before"
    await house.ask("PUT", "/v1/pools/coder", {"command": ["cat", "-u"]})
    assert (await house.store.pool("coder")).generation == 2
    gone = await house.ask("DELETE", "/v1/pools/coder")
    assert (gone.status, gone.json()["state"]) == (202, "draining")
    assert (await house.ask("PUT", "/v1/pools/coder", {})).json()["state"] == "active", "it stays after all"
    assert [kind for kind, _ in house.told.events] == ["pool_set"] * 3 + ["pool_deleted", "pool_set"]
    assert {about["by"] for _, about in house.told.events} == {"admin"}


async def test_machines_and_steps_are_shown_with_their_reasons(house: House) -> None:
    await house.ask("PUT", "/v1/pools/coder", {})
    machine = Machine(
        id="m1", role="coder", generation=1, use=Use.WORKING, since=NOON, created_at=NOON, env_id="pool-coder-1",
        vm_id=VmId("00000001-000"), agent_name="coder-1", reason="one waits",
    )  # fmt: skip
    await house.store.intend([machine])
    for number in (1, 2):
        await house.telling.step("coder", before=number - 1, after=number, reason=f"step {number}", machine="m1")
    house.seen.decisions["coder"] = Decision(workers=1, desired=2, actions=(), held="no room")
    house.seen.states["m1"] = VmState.RUNNING
    shown = (await house.ask("GET", "/v1/pools/coder")).json()
    (one,) = shown["machines"]
    assert (one["vm_id"], one["use"], one["state"], one["agent"]) == ("00000001-000", "working", "running", "coder-1")
    assert (shown["workers"], shown["desired"], shown["held"]) == (1, 2, "no room")
    assert [(step["from"], step["to"], step["reason"]) for step in shown["steps"]] == [
        (1, 2, "step 2"),
        (0, 1, "step 1"),
    ]
    assert shown["last_step"] == shown["steps"][0]
    assert [about["reason"] for kind, about in house.told.events if kind == "pool_scaled"] == ["step 1", "step 2"]


async def test_the_list_comes_in_pages(house: House) -> None:
    for role in ("coder", "tester", "writer"):
        await house.ask("PUT", f"/v1/pools/{role}", {})
    first = await house.ask("GET", "/v1/pools?limit=2")
    page = first.json()
    assert [each["role"] for each in page["pools"]] == ["coder", "tester"]
    assert page["next_cursor"] in first.headers["link"]
    rest = (await house.ask("GET", f"/v1/pools?limit=2&cursor={page['next_cursor']}")).json()
    assert ([each["role"] for each in rest["pools"]], rest["next_cursor"]) == (["writer"], None)
    assert (await house.ask("GET", "/v1/pools?cursor=%%")).json()["code"] == "invalid_cursor"


UNTRUSTED = """
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: stranger, version: "1.0.0"}
spec: {trust_level: untrusted}
"""


@pytest.mark.parametrize(
    ("role", "body", "status", "code"),
    [
        ("Coder!", {}, 422, "invalid_role"),
        ("coder", {"min": 3, "max": 2}, 422, "invalid_pool"),
        ("coder", {"max": 100_000}, 422, "invalid_body"),
        ("coder", {"size": 3}, 422, "invalid_body"),
        ("coder", {"engine": "abacus"}, 422, "invalid_body"),
        ("coder", {"image": "../etc"}, 422, "invalid_name"),
        ("coder", {"manifest": "kind: nothing"}, 422, None),
        ("coder", {"manifest": UNTRUSTED}, 422, "isolation_too_weak"),
    ],
)
async def test_what_cannot_be_is_refused_and_makes_nothing(
    house: House, role: str, body: dict[str, Any], status: int, code: str | None
) -> None:
    got = await house.ask("PUT", f"/v1/pools/{role}", body)
    assert got.status == status, got.body
    assert code is None or got.json()["code"] == code
    assert await house.store.pools() == ()


async def test_who_may_only_read_or_write_sets_no_pools(house: House) -> None:
    for who in ("reader", "writer"):
        assert (await house.ask("PUT", "/v1/pools/coder", {}, who=who)).status == 403
    for method in ("GET", "DELETE"):
        got = await house.ask(method, "/v1/pools/coder")
        assert (got.status, got.json()["code"]) == (404, "pool_not_found")
    assert (await house.ask("GET", "/v1/pools", who="reader")).json() == {"pools": [], "count": 0, "next_cursor": None}


async def test_trouble_is_told_while_it_lasts(house: House) -> None:
    await house.ask("PUT", "/v1/pools/coder", {})
    for _ in range(2):
        failure = Failure(reason="the image is broken", asked_at=datetime.now(UTC) + timedelta(seconds=1))
        await house.telling.trouble("coder", [failure], workers=0)
    shown = (await house.ask("GET", "/v1/pools/coder")).json()
    assert (shown["trouble"]["count"], shown["trouble"]["reason"]) == (2, "the image is broken")
    assert shown["last_step"]["reason"].startswith("failure 2 in a row, next try in 2 s")
