"""The dashboard's routes: its files and how browsers keep them, and how the operator's browser is let in."""

import gzip
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borough.adapters.credentials import sessions
from borough.adapters.credentials.operator import OperatorToken, operator_token
from borough.adapters.credentials.sessions import Sessions
from borough.bootstrap.dashboard import Dashboard
from borough.core.errors import Forbidden
from borough.http.surfaces import Policies
from borough.http.table import OperationTable
from borough.http.web import assets
from tests.surfaces.asgi import ask

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def operator(tmp_path: Path) -> OperatorToken:
    tmp_path.chmod(0o700)
    return operator_token(tmp_path)


@pytest.fixture
def kept(tmp_path: Path, operator: OperatorToken, clock: Clock) -> Sessions:
    return Sessions(tmp_path, operator, clock=clock)


@pytest.fixture
def table(kept: Sessions) -> OperationTable:
    return OperationTable([Dashboard(kept).surface], Policies())


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dashboard of three files."""
    static = tmp_path / "package" / "web" / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>x</title>")
    (static / "assets" / "app-1.js").write_text("one()")
    (static / "assets" / "app-1.js.gz").write_bytes(gzip.compress(b"one()"))
    (static / "assets" / "notes.txt").write_text("not of the page")
    monkeypatch.setattr(assets, "files", lambda _package: tmp_path / "package")
    assets._assets.cache_clear()
    return static


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


# -- files -------------------------------------------------------------------------------------------------------------


async def test_the_page_is_asked_for_each_time_and_its_files_never_again(table: OperationTable, built: Path) -> None:
    page = await ask(table, "GET", "/")
    assert (page.status, page.headers["cache-control"]) == (200, "no-cache")
    assert re.fullmatch(r'"[0-9a-f]{32}"', page.headers["etag"])
    again = await ask(table, "GET", "/", headers={"if-none-match": f'"other", {page.headers["etag"]}'})
    assert (again.status, again.body) == (304, b"")
    file = await ask(table, "GET", "/assets/app-1.js")
    assert (file.status, file.body) == (200, b"one()")
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert file.headers["content-type"] == "text/javascript; charset=utf-8"
    (built / "index.html").write_text("<!doctype html><title>y</title>")
    assert (await ask(table, "GET", "/", headers={"if-none-match": page.headers["etag"]})).status == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip, br", "gzip"), ("br", None), ("gzip;q=0", None), ("", None), ("gzip;q=oops", None), ("GZIP;q=0.5", "gzip")],
)
async def test_a_packed_file_goes_to_who_unpacks_it(
    table: OperationTable, built: Path, accepted: str, encoding: str | None
) -> None:
    got = await ask(table, "GET", "/assets/app-1.js", headers={"accept-encoding": accepted})
    assert got.headers.get("content-encoding") == encoding
    assert got.headers["vary"] == "accept-encoding"
    assert (gzip.decompress(got.body) if encoding else got.body) == b"one()"
    plain = await ask(table, "GET", "/assets/app-1.js")
    assert (got.headers["etag"] == plain.headers["etag"]) is (encoding is None)


@pytest.mark.parametrize("name", ["nothing.js", "notes.txt", "..%2Findex.html", "app-1.js.gz", "index.html"])
async def test_nothing_but_the_page_s_files_is_served(table: OperationTable, built: Path, name: str) -> None:
    got = await ask(table, "GET", f"/assets/{name}")
    assert (got.status, got.json()["code"]) == (404, "asset_not_found")


async def test_a_dashboard_that_was_not_built_says_so(table: OperationTable, built: Path) -> None:
    (built / "index.html").unlink()
    got = await ask(table, "GET", "/")
    assert got.status == 503
    assert b"make web" in got.body


# -- signing in --------------------------------------------------------------------------------------------------------


async def test_a_code_becomes_a_session_once(table: OperationTable, operator: OperatorToken, tmp_path: Path) -> None:
    refused = await ask(table, "POST", "/v1/sign-in-codes")
    assert (refused.status, refused.json()["code"]) == (401, "authentication_required")
    made = await ask(table, "POST", "/v1/sign-in-codes", headers=bearer(operator.reveal()))
    assert (made.status, made.json()["expires_in_secs"]) == (201, 600)
    session = await ask(table, "POST", "/v1/sessions", json={"code": made.json()["code"]})
    assert session.status == 201
    token = session.json()["token"]
    second = await ask(table, "POST", "/v1/sessions", json={"code": made.json()["code"]})
    assert (second.status, second.json()["code"]) == (403, "invalid_code")
    state = await ask(table, "GET", "/v1/sessions/current", headers=bearer(token))
    assert state.json() == {"kind": "session", "expires_at": session.json()["expires_at"]}
    own = await ask(table, "GET", "/v1/sessions/current", headers=bearer(operator.reveal()))
    assert own.json() == {"kind": "operator", "expires_at": None}
    file = tmp_path / sessions.SESSIONS_FILE
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert (await ask(table, "DELETE", "/v1/sessions/current", headers=bearer(token))).status == 204
    over = await ask(table, "GET", "/v1/sessions/current", headers=bearer(token))
    assert (over.status, over.json()["code"]) == (401, "invalid_credentials")


async def test_codes_and_sessions_end_by_themselves(kept: Sessions, clock: Clock) -> None:
    code, lifetime_s = kept.new_code()
    clock.now += timedelta(seconds=lifetime_s)
    with pytest.raises(Forbidden):
        kept.exchange(code)
    secret, end = kept.exchange(kept.new_code()[0])
    assert kept.matches(secret)
    clock.now = end
    assert not kept.matches(secret)


async def test_a_session_outlives_the_server_and_a_code_does_not(
    kept: Sessions, operator: OperatorToken, tmp_path: Path, clock: Clock
) -> None:
    secret, _ = kept.exchange(kept.new_code()[0])
    code, _ = kept.new_code()
    next_life = Sessions(tmp_path, operator, clock=clock)
    assert next_life.matches(secret)
    with pytest.raises(Forbidden):
        next_life.exchange(code)


async def test_there_are_never_many_codes_or_sessions(kept: Sessions) -> None:
    first, _ = kept.new_code()
    for _ in range(sessions.MOST_CODES):
        kept.new_code()
    with pytest.raises(Forbidden):
        kept.exchange(first)
    for _ in range(sessions.MOST_SESSIONS + 3):
        kept.exchange(kept.new_code()[0])
    assert len(kept._sessions) == sessions.MOST_SESSIONS


async def test_a_damaged_file_lets_nobody_in(operator: OperatorToken, tmp_path: Path, kept: Sessions) -> None:
    secret, _ = kept.exchange(kept.new_code()[0])
    (tmp_path / sessions.SESSIONS_FILE).write_text("{")
    assert not Sessions(tmp_path, operator).matches(secret)


@pytest.mark.parametrize("secret", ["", "bop_s_", "bop_s_" + "0" * 64, "bop_s_" + "x" * 10_000])
async def test_what_was_never_given_out_is_no_session(kept: Sessions, secret: str) -> None:
    assert not kept.matches(secret)
    with pytest.raises(Forbidden):
        kept.exchange(secret)
