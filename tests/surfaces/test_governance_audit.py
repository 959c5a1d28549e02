"""The ledger on the wire."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from openapi_spec_validator import validate

from borough.core.clock import rfc3339, utc_now
from borough.core.ids import new_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.checkpoints import open_checkpoint, parse_verifier_key
from borough.governance.ledger import Outcome
from borough.governance.merkle import leaf_hash, verify_consistency, verify_inclusion
from borough.governance.tokens import Role
from borough.governance.verification import Proven, verify_export
from borough.http.governance.routes import RECORDS
from borough.http.openapi.description import document
from tests.services.records_house import as_agent
from tests.surfaces.asgi import Got
from tests.surfaces.records_app import App, open_app

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with open_app(tmp_path) as app:
        yield app


async def calls(app: App, agent: GovernedAgent, *details: str, outcome: Outcome = Outcome.SUCCESS) -> None:
    for detail in details:
        await app.records.recorder.event(as_agent(agent), Action.TOOL_INVOKE, detail=detail, outcome=outcome)


def details(got: Got) -> list[str]:
    assert got.status == 200, got.body
    return [entry["detail"] for entry in got.json()]


async def test_a_trail_is_the_newest_entries_oldest_first_byte_for_byte(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, *map(str, range(120)))
    got = await app.ask("GET", f"/agents/{agent.id}/audit")
    assert details(got) == [str(number) for number in range(20, 120)]
    assert got.headers["content-type"] == "application/json"
    stored = [(await app.records.ledger.get(seq)).canonical for seq in range(20, 120)]
    assert got.body == b"[" + b",".join(stored) + b"]"
    assert details(await app.ask("GET", f"/agents/{agent.id}/audit?limit=2&unknown=1")) == ["118", "119"]


async def test_times_are_inclusive_and_leniently_written(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, "only")
    stamp = orjson.loads((await app.records.ledger.get(0)).canonical)["timestamp"]
    base = f"/agents/{agent.id}/audit"
    assert details(await app.ask("GET", f"{base}?since={stamp}&until={stamp}")) == ["only"]
    later = rfc3339(utc_now() + timedelta(minutes=1))
    assert details(await app.ask("GET", f"{base}?since={later}")) == []
    offset = stamp.replace("Z", "+00:00")
    for written in (offset, quote(offset, safe=""), offset.replace("+", "%20")):
        assert details(await app.ask("GET", f"{base}?since={written}&until={written}")) == ["only"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=10001", "limit=x", "since=yesterday", "until=2026-01-01", "outcome=no"]
)
async def test_bad_values_are_400(app: App, query: str) -> None:
    agent = await app.records.agent()
    got = await app.ask("GET", f"/agents/{agent.id}/audit?{query}")
    assert (got.status, got.json()["code"]) == (400, "invalid_request")


async def test_trails_are_filtered_in_every_vocabulary(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, "yes")
    await calls(app, agent, "no", outcome=Outcome.DENIED)
    base = f"/agents/{agent.id}/audit"
    assert details(await app.ask("GET", f"{base}?action=tool_invoked")) == ["yes", "no"]
    assert details(await app.ask("GET", f"{base}?action=ToolInvoke&outcome=denied&outcome=timeout")) == ["no"]
    assert details(await app.ask("GET", f"{base}?action=Spawn")) == []


async def test_agents_that_nobody_knows_are_404_and_those_that_ended_are_not(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, "a")
    await app.records.end(agent)
    assert details(await app.ask("GET", f"/agents/{agent.id}/audit")) == ["a"]
    for unknown in (new_id(), "nobody"):
        got = await app.ask("GET", f"/agents/{unknown}/audit")
        assert (got.status, got.json()["code"]) == (404, "agent_not_found")
    assert (await app.ask("GET", f"/agents/{agent.id}/audit", token="x")).status == 401


async def test_all_entries_are_paged_to_the_end(app: App) -> None:
    agent, other = await app.records.agent(name="a"), await app.records.agent(name="b")
    await calls(app, agent, *map(str, range(5)))
    await calls(app, other, "other")
    target, seen = "/audit?limit=2&outcome=success&action=ToolInvoke&agent=" + agent.id, []
    while True:
        got = await app.ask("GET", target)
        seen += details(got)
        link = got.headers.get("link")
        if link is None:
            break
        reference, _, relation = link.partition("; ")
        assert relation == 'rel="next"'
        target = "/audit" + reference[1:-1]
    assert seen == ["0", "1", "2", "3", "4"]
    newest = await app.ask("GET", "/audit?limit=2&order=newest")
    assert details(newest) == ["4", "other"]
    assert await paged_back(app, "/audit?limit=3&order=newest&action=ToolInvoke&outcome=success") == [
        ["3", "4", "other"],
        ["0", "1", "2"],
    ]
    assert (await app.ask("GET", "/audit?cursor=%21")).status == 400
    assert (await app.ask("GET", "/audit?unknown=1")).status == 400


async def paged_back(app: App, target: str) -> list[list[str]]:
    pages = []
    while target:
        got = await app.ask("GET", target)
        pages.append(details(got))
        link = got.headers.get("link")
        target = "/audit" + link.partition("; ")[0][1:-1] if link else ""
    return pages


async def test_one_entry_is_found_by_its_number_by_who_may_see_it(app: App) -> None:
    agent, other = await app.records.agent(name="a"), await app.records.agent(name="b")
    await calls(app, agent, "mine")
    await calls(app, other, "other")
    token = await app.records.key(agent, role=Role.AGENT)
    entries = (await app.ask("GET", "/audit")).json()
    for entry in entries:
        got = await app.ask("GET", f"/audit/entries/{entry['seq']}")
        assert got.json() == entry
        narrow = await app.ask("GET", f"/audit/entries/{entry['seq']}", token=token)
        mine = agent.id in {entry["agent_id"], entry.get("on_behalf_of")}
        assert narrow.status == (200 if mine else 404), entry
    for word in ("1000000", "first", "9" * 40):
        got = await app.ask("GET", f"/audit/entries/{word}")
        assert (got.status, got.json()["code"]) == (404, "entry_not_found")


async def test_a_narrow_key_sees_less(app: App) -> None:
    agent, other = await app.records.agent(name="a"), await app.records.agent(name="b")
    await calls(app, agent, "mine")
    await calls(app, other, "other")
    token = await app.records.key(agent, role=Role.AGENT)
    assert details(await app.ask("GET", "/audit", token=token)) == ["mine"]
    assert (await app.ask("GET", f"/agents/{other.id}/audit", token=token)).status == 403
    assert (await app.ask("GET", "/audit/export", token=token)).status == 403
    bound = await app.records.key(agent, "bound")
    assert "other" in details(await app.ask("GET", "/audit", token=bound))


async def test_proofs_verify_with_the_published_key(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, *map(str, range(5)))
    key = parse_verifier_key((await app.ask("GET", "/audit/key")).body.decode())
    old = await app.ask("GET", "/audit/checkpoint")
    assert old.headers["content-type"] == "text/plain; charset=utf-8"
    before = open_checkpoint(old.body.decode(), key)
    await calls(app, agent, *map(str, range(5, 9)))
    got = (await app.ask("GET", "/audit/proof?seq=3")).json()
    signed = open_checkpoint(got["checkpoint"], key)
    assert got["leaf"] == leaf_hash((await app.records.ledger.get(3)).canonical).hex()
    assert verify_inclusion(
        leaf=bytes.fromhex(got["leaf"]),
        index=got["leaf_index"],
        size=got["tree_size"],
        proof=[bytes.fromhex(each) for each in got["hashes"]],
        root=signed.root,
    )
    grown = (await app.ask("GET", f"/audit/proof?from={before.size}&to=9")).json()
    assert verify_consistency(
        old=before.size,
        new=9,
        old_root=before.root,
        new_root=open_checkpoint(grown["checkpoint"], key).root,
        proof=[bytes.fromhex(each) for each in grown["hashes"]],
    )
    assert (await app.ask("GET", "/audit/proof?seq=99")).status == 404
    for query in ("", "?seq=1&from=1", "?to=3", "?from=9&to=3"):
        assert (await app.ask("GET", f"/audit/proof{query}")).status == 400


async def test_the_server_checks_itself_and_an_export_is_checked_elsewhere(app: App) -> None:
    agent = await app.records.agent()
    await calls(app, agent, *map(str, range(5)))
    first = (await app.ask("GET", "/audit/verify?limit=3")).json()
    assert (first["ok"], first["entries"], first["next_seq"]) == (True, 3, 3)
    rest = (await app.ask("GET", "/audit/verify?from=3")).json()
    assert (rest["ok"], rest["entries"], rest["next_seq"], rest["first_bad"]) == (True, 2, None, None)
    got = await app.ask("GET", "/audit/export")
    assert got.headers["content-disposition"] == 'attachment; filename="ledger-0-5.borough"'
    proven = verify_export(got.body.splitlines(keepends=True), app.records.ledger.key)
    assert isinstance(proven, Proven)
    assert proven.head.size == 5
    assert (await app.ask("GET", "/audit/export?first=99")).status == 404


async def test_reads_are_counted_and_refused_ones_are_not(app: App) -> None:
    agent = await app.records.agent()
    for _ in range(3):
        await app.ask("GET", f"/agents/{agent.id}/audit")
    await app.ask("GET", "/audit", token="f" * 64)
    await app.records.reads.flush(everything=True)
    await app.records.logins.flush(everything=True)
    counted = [entry["data"] for entry in await app.records.entries("ReadsAggregated")]
    assert {each["route"] for each in counted} == {"/agents/{id}/audit"}
    assert sum(each["count"] for each in counted) == 3
    (failure,) = await app.records.entries("AuthFailure")
    assert failure["data"]["address"] == "127.0.0.1"


def test_the_routes_of_records_have_a_valid_document() -> None:
    whole = document(RECORDS, title="Records", version="1", description="All of them.")
    validate(whole)
    listed = {item["name"] for item in whole["paths"]["/agents/{id}/memory/{key}"]["put"]["parameters"]}
    assert listed == {"id", "key"}
