"""The store of the gateway's tokens: in force when a call returns, safe in a shared folder, no secret at rest."""

import os
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borough.adapters.sql.tokens import MOST_TICKETS, SqlTokens
from borough.core.errors import Conflict, NotFound
from borough.governance.tokens import (
    ApiToken,
    Caller,
    Role,
    TokenScope,
    new_token,
    revoke,
    rotate,
    ticket,
    token_sha256,
)

pytestmark = pytest.mark.anyio

AGENT = "550e8400-e29b-41d4-a716-446655440000"
AT = datetime(2026, 2, 22, 12, 34, 56, 789_123, tzinfo=UTC)


def secret(number: int) -> str:
    return f"{number:064x}"


def made(name: str = "ci", number: int = 1, **about: object) -> ApiToken:
    return new_token(name=name, agent_id=AGENT, token=secret(number), at=AT, **about)  # type: ignore[arg-type] # named as there


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[SqlTokens]:
    store = await SqlTokens.open(tmp_path / "data" / "tokens.db", now=lambda: AT)
    yield store
    await store.close()


async def reopened(store: SqlTokens, path: Path) -> SqlTokens:
    await store.close()
    return await SqlTokens.open(path)


async def test_a_token_is_found_by_its_digest_and_its_name_after_a_restart_too(
    tokens: SqlTokens, tmp_path: Path
) -> None:
    token = made(role=Role.AGENT, scopes=[TokenScope.AUDIT_READ], expires_at=AT + timedelta(days=1))
    await tokens.add(token)
    for store in (tokens, await reopened(tokens, tmp_path / "data" / "tokens.db")):
        assert await store.by_digest(token_sha256(secret(1))) == token
        assert await store.get("ci") == token
        assert await store.by_digest(token_sha256(secret(2))) is None
        with pytest.raises(NotFound):
            await store.get("other")
    await store.close()


async def test_a_taken_name_is_refused_and_a_revoked_ones_is_free(tokens: SqlTokens) -> None:
    await tokens.add(made())
    with pytest.raises(Conflict) as refused:
        await tokens.add(made(number=2))
    assert refused.value.code == "token_exists"
    assert await tokens.by_digest(token_sha256(secret(2))) is None
    await tokens.replace(revoke(made(), at=AT))
    assert await tokens.all() == ()
    revoked = await tokens.by_digest(token_sha256(secret(1)))
    assert revoked is not None
    assert revoked.revoked_at == AT
    later = replace(made(number=2), created_at=AT + timedelta(seconds=1))
    await tokens.add(later)
    assert await tokens.all() == (later,)
    assert await tokens.by_digest(token_sha256(secret(1))) is None


async def test_after_a_rotation_both_digests_lead_to_the_token(tokens: SqlTokens) -> None:
    await tokens.add(made())
    turned = rotate(made(), token=secret(2), at=AT, overlap=timedelta(hours=1))
    await tokens.replace(turned)
    assert await tokens.by_digest(token_sha256(secret(1))) == turned
    assert await tokens.by_digest(token_sha256(secret(2))) == turned
    await tokens.replace(rotate(turned, token=secret(3), at=AT))
    assert await tokens.by_digest(token_sha256(secret(1))) is None


async def test_a_token_that_is_not_there_cannot_be_replaced(tokens: SqlTokens) -> None:
    with pytest.raises(NotFound) as refused:
        await tokens.replace(made())
    assert refused.value.code == "token_not_found"


async def test_when_a_token_was_used_is_seen_at_once_and_written_later(tokens: SqlTokens, tmp_path: Path) -> None:
    await tokens.add(made())
    for second in (3, 1, 2):
        await tokens.used("ci", at=AT + timedelta(seconds=second))
    await tokens.used("unknown", at=AT)
    assert (await tokens.get("ci")).last_used_at == AT + timedelta(seconds=3)
    again = await reopened(tokens, tmp_path / "data" / "tokens.db")
    assert (await again.get("ci")).last_used_at == AT + timedelta(seconds=3)
    await again.close()


async def test_a_ticket_is_taken_once_and_in_time(tokens: SqlTokens) -> None:
    caller = Caller(token_name="ci", agent_id=made().agent_id, role=Role.OPERATOR, scopes=frozenset())
    kept = ticket("word", caller, at=AT)
    await tokens.keep_ticket(kept)
    assert await tokens.take_ticket(kept.digest, at=AT) == kept
    assert await tokens.take_ticket(kept.digest, at=AT) is None
    await tokens.keep_ticket(kept)
    assert await tokens.take_ticket(kept.digest, at=kept.expires_at) is None
    for number in range(MOST_TICKETS + 1):
        await tokens.keep_ticket(ticket(str(number), caller, at=AT))
    assert await tokens.take_ticket(token_sha256("0"), at=AT) is None
    assert await tokens.take_ticket(token_sha256(str(MOST_TICKETS)), at=AT) is not None


async def test_the_file_holds_no_token(tokens: SqlTokens, tmp_path: Path) -> None:
    await tokens.add(made(number=0xABC))
    await tokens.close()
    for file in (tmp_path / "data").iterdir():
        assert secret(0xABC).encode() not in file.read_bytes()
    assert token_sha256(secret(0xABC)).encode() in (tmp_path / "data" / "tokens.db").read_bytes()


# -- a shared folder ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder / "tokens.db"


async def refusal(path: Path) -> Conflict:
    with pytest.raises(Conflict) as refused:
        await SqlTokens.open(path)
    assert refused.value.code == "store_not_private"
    assert refused.value.resolution
    return refused.value


async def test_in_a_shared_folder_everything_is_ours_before_it_is_trusted(shared: Path) -> None:
    store = await SqlTokens.open(shared)
    await store.add(made())
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in shared.parent.iterdir()} == dict.fromkeys(
        ("tokens.db", "tokens.db-wal", "tokens.db-shm", "tokens.db-journal", "tokens.db.lock"), 0o600
    )
    again = await reopened(store, shared)
    assert await again.get("ci") == made()
    await again.close()


@pytest.mark.parametrize("name", ["tokens.db", "tokens.db-wal", "tokens.db-journal", "tokens.db-shm", "tokens.db.lock"])
async def test_a_link_in_its_place_is_not_followed(shared: Path, name: str) -> None:
    target = shared.parent.parent / "target"
    target.write_text("precious")
    (shared.parent / name).symlink_to(target)
    await refusal(shared)
    assert target.read_text() == "precious"
    (shared.parent / name).unlink()
    os.link(target, shared.parent / name)
    await refusal(shared)
    assert target.read_text() == "precious"


async def test_a_file_that_others_may_open_is_refused_with_the_way_out(shared: Path) -> None:
    shared.touch(mode=0o644)
    assert f"chmod 600 {shared}" in str((await refusal(shared)).resolution)
    shared.chmod(0o600)
    await (await SqlTokens.open(shared)).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is somebody else's")
async def test_a_file_of_somebody_else_is_refused(shared: Path) -> None:
    shared.touch(mode=0o600)
    os.chown(shared, 12345, 12345)
    assert "12345" in str((await refusal(shared)).reason)


async def test_a_folder_in_which_others_may_replace_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    await refusal(tmp_path / "open" / "tokens.db")
