"""Memory, observations, the blackboard and the bus on the wire."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from borough.core.ids import new_id
from borough.governance.tokens import Role
from tests.surfaces.records_app import App, open_app

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with open_app(tmp_path) as app:
        yield app


async def test_a_value_is_written_and_read(app: App) -> None:
    agent = await app.records.agent()
    base = f"/agents/{agent.id}/memory/last-run-result"
    made = await app.ask("PUT", base, json={"value": {"n": 1.50}, "ttl_secs": 60})
    assert (made.status, made.headers["etag"]) == (201, '"1"')
    got = await app.ask("GET", base)
    body = got.json()
    assert set(body) == {"key", "value", "version", "expires_at", "updated_at"}
    assert (body["key"], body["value"], body["version"]) == ("last-run-result", {"n": 1.5}, 1)
    assert body["expires_at"].endswith("Z")
    assert got.headers["etag"] == '"1"'
    again = await app.ask("PUT", base, json={"value": None})
    assert (again.status, again.json()["value"], again.json()["version"]) == (200, None, 2)
    assert (await app.ask("DELETE", base)).status == 204
    for method in ("GET", "DELETE"):
        gone = await app.ask(method, base)
        assert (gone.status, gone.json()["code"]) == (404, "key_not_found")
    assert (await app.ask("GET", f"/agents/{new_id()}/memory/a")).json()["code"] == "agent_not_found"


async def test_keys_hold_slashes_encoded_or_not(app: App) -> None:
    agent = await app.records.agent()
    base = f"/agents/{agent.id}/memory"
    await app.ask("PUT", f"{base}/state/a%20b%2Fc", json={"value": 1})
    for path in ("state/a%20b/c", "state%2Fa%20b%2Fc"):
        assert (await app.ask("GET", f"{base}/{path}")).json()["key"] == "state/a b/c"
    await app.ask("PUT", f"{base}/other", json={"value": 1})
    assert (await app.ask("GET", base)).json() == ["other", "state/a b/c"]
    assert (await app.ask("GET", f"{base}?pattern=state/**")).json() == ["state/a b/c"]
    page = await app.ask("GET", f"{base}?limit=1")
    assert page.json() == ["other"]
    rest = await app.ask("GET", base + page.headers["link"].split(">")[0][1:])
    assert rest.json() == ["state/a b/c"]


async def test_conditions_of_headers_are_412_and_of_bodies_409(app: App) -> None:
    agent = await app.records.agent()
    base = f"/agents/{agent.id}/memory/k"
    assert (await app.ask("PUT", base, json={"value": 1}, headers={"if-none-match": "*"})).status == 201
    for headers, json, status in (
        ({"if-none-match": "*"}, {"value": 2}, 412),
        ({"if-match": '"9"'}, {"value": 2}, 412),
        ({}, {"value": 2, "expected_version": 9}, 409),
        ({}, {"value": 2, "expected_version": 0}, 409),
    ):
        got = await app.ask("PUT", base, json=json, headers=headers)
        assert (got.status, got.headers["etag"], got.json()["details"]) == (status, '"1"', {"version": 1})
    assert (await app.ask("PUT", base, json={"value": 2}, headers={"if-match": '"1"'})).json()["version"] == 2
    assert (await app.ask("PUT", base, json={"value": 3, "expected_version": 2})).json()["version"] == 3
    assert (await app.ask("DELETE", base, headers={"if-match": '"2"'})).status == 412
    assert (await app.ask("DELETE", base, headers={"if-match": '"3"'})).status == 204
    for headers in ({"if-match": "3"}, {"if-none-match": '"3"'}, {"if-match": '"1"', "if-none-match": "*"}):
        assert (await app.ask("PUT", base, json={"value": 2}, headers=headers)).status == 400


@pytest.mark.parametrize(
    ("json", "status"),
    [({}, 400), ({"value": 1, "other": 1}, 400), ({"value": 1, "ttl_secs": 0}, 400), ({"value": "x" * 1_048_577}, 413)],
)
async def test_what_cannot_be_kept_is_refused(app: App, json: object, status: int) -> None:
    agent = await app.records.agent()
    assert (await app.ask("PUT", f"/agents/{agent.id}/memory/k", json=json)).status == status


async def test_an_agents_key_needs_the_capability(app: App) -> None:
    agent = await app.records.agent("memory.read:state/*")
    token = await app.records.key(agent, role=Role.AGENT)
    got = await app.ask("GET", f"/agents/{agent.id}/memory/other", token=token)
    assert (got.status, got.json()["code"]) == (403, "denied")
    assert (await app.ask("GET", f"/agents/{agent.id}/memory/state/a", token=token)).status == 404


async def test_observations_are_appended_and_found(app: App) -> None:
    agent = await app.records.agent("obs.append", "obs.query")
    token = await app.records.key(agent, role=Role.AGENT)
    base = f"/agents/{agent.id}/observations"
    said = {"action": "read a file", "result": "42 lines", "tags": ["fs"], "metadata": {"n": 1.5}}
    made = await app.ask("POST", base, json=said, token=token)
    assert made.status == 201
    await app.ask("POST", base, json={"action": "think"}, token=token)
    found = (await app.ask("GET", f"{base}?unknown=1", token=token)).json()
    assert [each["action"] for each in found] == ["read a file", "think"]
    assert found[0] == made.json()
    assert set(found[0]) == {"id", "timestamp", "agent_id", *said, "prev_hash", "hash"}
    assert found[1]["prev_hash"] == found[0]["hash"]
    for query in ("keyword=LINES", "tag=fs", "limit=1&keyword=file"):
        assert len((await app.ask("GET", f"{base}?{query}", token=token)).json()) == 1
    assert (await app.ask("GET", f"{base}?since=x", token=token)).status == 400
    assert (await app.ask("POST", base, json={"action": ""}, token=token)).status == 400


async def test_the_blackboard_is_swapped_by_value(app: App) -> None:
    base = "/blackboard/locks/build"
    assert (await app.ask("POST", base, json={"expected": None, "new_value": "me"})).json()["value"] == "me"
    taken = await app.ask("POST", base, json={"expected": None, "new_value": "you"})
    assert (taken.status, taken.json()["code"]) == (409, "value_mismatch")
    assert taken.json()["details"] == {"value": '"me"'}
    assert (await app.ask("GET", "/blackboard")).json() == ["locks/build"]
    assert (await app.ask("POST", base, json={"expected": "me", "new_value": None})).status == 204
    assert (await app.ask("GET", base)).status == 404
    assert (await app.ask("PUT", base, json={"value": [1]})).status == 201
    assert (await app.ask("GET", base)).json()["value"] == [1]
    for _ in range(2):
        assert (await app.ask("DELETE", base)).status == 204
    agent = await app.records.agent()
    token = await app.records.key(agent, role=Role.AGENT)
    assert (await app.ask("GET", base, token=token)).status == 403


async def test_messages_go_by_the_bus(app: App) -> None:
    agent = await app.records.agent("bus.subscribe")
    token = await app.records.key(agent, role=Role.AGENT)
    base = f"/agents/{agent.id}"
    assert (await app.ask("PUT", f"{base}/subscriptions", json={"pattern": "build/*"}, token=token)).status == 204
    assert (await app.ask("GET", f"{base}/subscriptions", token=token)).json() == ["build/*"]
    posted = await app.ask("POST", "/bus/messages", json={"topic": "build/done", "payload": {"ok": True}})
    assert (posted.status, posted.json()) == (202, {"mailboxes": 1})
    mail = (await app.ask("POST", f"{base}/mailbox/poll", token=token)).json()
    assert mail["dropped"] == 0
    (message,) = mail["messages"]
    assert (message["topic"], message["payload"], message["from_agent_id"]) == ("build/done", {"ok": True}, None)
    assert (await app.ask("DELETE", f"{base}/subscriptions?pattern=build/*", token=token)).status == 204
    refused = await app.ask("POST", "/bus/messages", json={"topic": "a", "payload": 1}, token=token)
    assert refused.status == 403
