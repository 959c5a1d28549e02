"""Keys and secrets on the wire."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from borough.core.clock import rfc3339, utc_now
from borough.core.ids import new_id
from borough.governance.tokens import Role, TokenScope
from borough.http.governance.routes import RECORDS
from tests.surfaces.records_app import App, open_app

pytestmark = pytest.mark.anyio
VALUE = "s3cret-value-of-github"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with open_app(tmp_path) as app:
        yield app


async def test_a_key_is_made_used_rotated_and_revoked(app: App, tmp_path: Path) -> None:
    agent = await app.records.agent()
    expires = rfc3339(utc_now() + timedelta(hours=1))
    made = await app.ask("POST", "/tokens", json={"name": "ci", "agent_id": agent.id, "expires_at": expires})
    assert made.status == 201
    token = made.json()["token"]
    assert len(token) == 64
    assert made.json()["warning"] is None
    assert (await app.ask("GET", "/tokens", token=token)).status == 200
    listed = (await app.ask("GET", "/tokens")).json()
    assert [(key["name"], key["agent_id"], key["role"], key["expires_at"]) for key in listed] == [
        ("ci", agent.id, "operator", expires)
    ]
    assert listed[0]["last_used_at"] is not None
    assert all("token" not in key for key in listed)
    rotated = await app.ask("POST", "/tokens/ci/rotate", json={"overlap_secs": 60})
    assert rotated.json()["previous_until"] is not None
    newest = (await app.ask("POST", "/tokens/ci/rotate")).json()["token"]
    assert (await app.ask("GET", "/tokens", token=token)).status == 401
    assert (await app.ask("GET", "/tokens", token=newest)).status == 200
    assert (await app.ask("DELETE", "/tokens/ci", token=newest)).status == 204
    refused = await app.ask("GET", "/tokens", token=newest)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await app.ask("DELETE", "/tokens/ci")).status == 404
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    for hidden in (token, newest):
        assert hidden.encode() not in files


async def test_keys_that_cannot_be_made_are_refused(app: App) -> None:
    agent = new_id()
    first = await app.ask("POST", "/tokens", json={"name": "ci", "agent_id": agent})
    assert "no agent" in first.json()["warning"]
    for body, status, code in (
        ({"name": "ci", "agent_id": agent}, 409, "token_exists"),
        ({"name": "a b", "agent_id": agent}, 400, "invalid_name"),
        ({"name": "a", "agent_id": "nobody"}, 400, "invalid_agent_id"),
        ({"name": "a", "agent_id": agent, "role": "agent", "scopes": ["secrets.manage"]}, 400, "scope_not_allowed"),
        ({"name": "a", "agent_id": agent, "expires_at": "2020-01-01T00:00:00Z"}, 400, "invalid_expiry"),
        ({"name": "a", "agent_id": agent, "expires_at": "soon"}, 400, "invalid_request"),
        ({"name": "a", "agent_id": agent, "other": 1}, 400, "invalid_request"),
    ):
        got = await app.ask("POST", "/tokens", json=body)
        assert (got.status, got.json()["code"]) == (status, code)


async def test_narrow_keys_stay_narrow(app: App) -> None:
    agent = await app.records.agent()
    own = await app.records.key(agent, "own", role=Role.AGENT)
    assert (await app.ask("POST", "/tokens", json={"name": "a", "agent_id": agent.id}, token=own)).status == 403
    some = await app.records.key(agent, "some", scopes=[TokenScope.TOKENS_MANAGE])
    wide = {"name": "a", "agent_id": agent.id, "scopes": ["secrets.manage"]}
    got = await app.ask("POST", "/tokens", json=wide, token=some)
    assert (got.status, got.json()["code"]) == (403, "scope_escalation")
    assert (await app.ask("GET", "/secrets", token=some)).json()["code"] == "scope_missing"


async def test_the_store_of_secrets_tells_names_only(app: App, tmp_path: Path) -> None:
    locked = await app.ask("PUT", "/secrets/github", json={"value": VALUE})
    assert (locked.status, locked.json()["code"]) == (423, "store_locked")
    unlocked = await app.ask("POST", "/secrets/unlock", json={"passphrase": "open sesame"})
    assert unlocked.json() == {"secrets": 0}
    got = await app.ask("PUT", "/secrets/github", json={"value": VALUE, "description": "a token"})
    assert (got.status, got.json()) == (200, {"name": "github"})
    assert "warning" in (await app.ask("PUT", "/secrets/pin", json={"value": "1234"})).json()
    assert (await app.ask("GET", "/secrets")).json() == [{"name": "github"}, {"name": "pin"}]
    rekeyed = await app.ask(
        "POST", "/secrets/rekey", json={"old_passphrase": "open sesame", "new_passphrase": "another"}
    )
    assert rekeyed.json() == {"secrets": 2}
    assert (await app.ask("POST", "/secrets/lock")).status == 204
    wrong = await app.ask("POST", "/secrets/unlock", json={"passphrase": "open sesame"})
    assert (wrong.status, wrong.json()["code"]) == (403, "wrong_passphrase")
    assert (await app.ask("POST", "/secrets/unlock", json={"passphrase": "another"})).status == 200
    assert (await app.ask("DELETE", "/secrets/pin")).status == 204
    assert (await app.ask("DELETE", "/secrets/pin")).status == 404
    assert (await app.ask("PUT", "/secrets/a%20b", json={"value": VALUE})).status == 400
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    for hidden in (VALUE.encode(), b"open sesame", b"another"):
        assert hidden not in files


async def test_pre_approvals_are_made_shown_and_withdrawn(app: App) -> None:
    wanted = {
        "label": "github reads",
        "secret_pattern": "git*",
        "tool_pattern": "web.fetch",
        "host_pattern": "API.github.com",
        "max_uses": 3,
        "trust_level": "trusted",
    }
    made = await app.ask("POST", "/secret-policies", json=wanted)
    assert made.status == 201
    body = made.json()
    assert body["host_pattern"] == "api.github.com"
    assert body["agent_matcher"] == {"type": "by_trust_level", "id": None, "pattern": None, "level": "trusted"}
    assert (body["use_count"], body["created_by"]) == (0, "operator")
    assert (await app.ask("GET", "/secret-policies")).json() == [body]
    assert (await app.ask("GET", f"/secret-policies/{body['id']}")).json() == body
    assert (await app.ask("DELETE", f"/secret-policies/{body['id']}")).status == 204
    assert (await app.ask("GET", f"/secret-policies/{body['id']}")).status == 404
    for matcher in ({"type": "by_id"}, {"type": "any", "id": "x"}, {"type": "by_id", "id": "x", "pattern": "y"}):
        bad = {"label": "l", "secret_pattern": "a", "tool_pattern": "b", "agent_matcher": matcher}
        assert (await app.ask("POST", "/secret-policies", json=bad)).status == 400


def test_answers_that_hold_secrets_are_never_kept() -> None:
    secret = {operation.path for operation in RECORDS if operation.secret_answer}
    assert {"/tokens", "/tokens/{name}/rotate", "/stream-tickets", "/secrets/unlock", "/secrets/rekey"} <= secret
