"""Secrets: sealed on disk, open in memory only between unlock and lock."""

import asyncio
import base64
import time
from dataclasses import replace

import pytest

from borough.adapters.sql.governance.sealing import MEMORY_KIB
from borough.adapters.sql.governance.secrets import SqlSecrets
from borough.core.errors import Forbidden, Invalid, NotFound, Unavailable
from borough.core.ids import new_id
from borough.governance.globs import compile_glob
from borough.governance.manifests import AgentMatcher, MatcherType
from borough.governance.ports.records import Secrets
from borough.governance.secrets import MOST_SECRET_BYTES, SecretPolicy
from borough.governance.trust import TrustLevel
from tests.contracts.governance_kit import NOON, House

pytestmark = pytest.mark.anyio
PASSPHRASE, ANOTHER = b"correct horse battery", b"staple of another kind"
VALUE = "tok-3f9d-very-secret-value"


@pytest.fixture
def secrets(house: House) -> Secrets:
    return house.quick_secrets()


async def test_values_are_given_back_only_while_the_store_is_open(house: House, secrets: Secrets) -> None:
    assert await secrets.unlock(PASSPHRASE) == 0
    await secrets.put("api-key", VALUE.encode(), description="for the tests")
    await secrets.put("other", "ä".encode(), description=None)
    assert await secrets.values(["api-key"]) == {"api-key": VALUE}
    assert await secrets.every_value() == {"api-key": VALUE, "other": "ä"}
    await secrets.lock()
    for attempt in (
        secrets.values(["api-key"]),
        secrets.every_value(),
        secrets.put("third", b"value", description=None),
    ):
        with pytest.raises(Unavailable) as refused:
            await attempt
        assert refused.value.code == "store_locked"
    assert await secrets.names() == ("api-key", "other")
    await house.reopen()
    again = house.quick_secrets()
    assert await again.names() == ("api-key", "other")
    assert await again.unlock(PASSPHRASE) == 2
    assert await again.values(["other"]) == {"other": "ä"}


async def test_a_wrong_passphrase_opens_nothing_and_changes_nothing(secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    await secrets.put("api-key", VALUE.encode(), description=None)
    for attempt in (secrets.unlock(ANOTHER), secrets.rekey(ANOTHER, PASSPHRASE)):
        with pytest.raises(Forbidden) as refused:
            await attempt
        assert refused.value.code == "wrong_passphrase"
    assert await secrets.values(["api-key"]) == {"api-key": VALUE}
    await secrets.lock()
    with pytest.raises(Forbidden):
        await secrets.unlock(ANOTHER)
    with pytest.raises(Unavailable):
        await secrets.every_value()
    for empty in (secrets.unlock(b""), secrets.rekey(PASSPHRASE, b"")):
        with pytest.raises(Invalid) as invalid:
            await empty
        assert invalid.value.code == "invalid_passphrase"


async def test_rekey_seals_everything_anew_and_open_stays_open_and_locked_locked(
    house: House, secrets: Secrets
) -> None:
    with pytest.raises(Forbidden):
        await secrets.rekey(PASSPHRASE, ANOTHER)
    await secrets.unlock(PASSPHRASE)
    for number in range(5):
        await secrets.put(f"s{number}", f"{VALUE}{number}".encode(), description=None)
    everything = await secrets.every_value()
    assert await secrets.rekey(PASSPHRASE, ANOTHER) == 5
    assert await secrets.every_value() == everything
    await secrets.put("later", b"sealed with the new key", description=None)
    await secrets.lock()
    with pytest.raises(Forbidden):
        await secrets.unlock(PASSPHRASE)
    assert await secrets.rekey(ANOTHER, PASSPHRASE) == 6
    with pytest.raises(Unavailable):
        await secrets.every_value()
    await house.reopen()
    again = house.quick_secrets()
    assert await again.unlock(PASSPHRASE) == 6
    assert await again.every_value() == {**everything, "later": "sealed with the new key"}


async def test_whoever_leaves_in_the_middle_of_a_rekey_leaves_a_store_that_opens(
    house: House, secrets: Secrets
) -> None:
    await secrets.unlock(PASSPHRASE)
    await secrets.put("before", b"value one", description=None)
    rekeying = asyncio.ensure_future(secrets.rekey(PASSPHRASE, ANOTHER))
    await asyncio.sleep(0)
    rekeying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rekeying
    await secrets.put("after", b"value two", description=None)
    await house.reopen()
    again = house.quick_secrets()
    assert await again.unlock(ANOTHER) == 2
    assert await again.every_value() == {"before": "value one", "after": "value two"}


async def test_no_value_and_no_passphrase_is_on_disk_or_in_what_is_shown(house: House, secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    for _ in range(3):
        await secrets.put("api-key", VALUE.encode(), description="shown to people")
    await secrets.rekey(PASSPHRASE, ANOTHER)
    on_disk = house.bytes_on_disk()
    assert b"shown to people" in on_disk  # what is not sealed is found by the same search
    hidden = (VALUE.encode(), PASSPHRASE, ANOTHER)
    key = bytes(secrets._key._key)  # type: ignore[attr-defined] # to look for it
    assert len(key) == 32
    for each in (*hidden, key):
        assert each not in on_disk
        assert each.hex().encode() not in on_disk
        assert base64.b64encode(each) not in on_disk
    shown = repr(secrets) + repr(vars(secrets))
    with pytest.raises(Invalid) as refused:
        await secrets.put("api-key", VALUE.encode() + b"\xff", description=None)
    shown += repr(refused.value) + str(vars(refused.value))
    assert VALUE not in shown
    assert key.hex() not in shown


async def test_locking_overwrites_the_key(secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    key = secrets._key  # type: ignore[attr-defined] # to look at what becomes of it
    in_memory = key._key
    assert any(in_memory)
    await secrets.lock()
    assert in_memory == bytes(32)
    with pytest.raises(ValueError, match="AESGCM key"):
        key.seal("name", b"value")


async def test_a_value_cannot_be_put_under_another_name_in_the_file(house: House, secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    await secrets.put("cheap", b"value one", description=None)
    await secrets.put("costly", b"value two", description=None)
    await house.database.write(
        lambda connection: connection.execute(
            "UPDATE secrets SET (nonce, sealed) = (SELECT nonce, sealed FROM secrets WHERE name = 'costly')"
            " WHERE name = 'cheap'"
        ).fetchall()
    )
    assert await secrets.unlock(PASSPHRASE) == 2
    with pytest.raises(Unavailable) as refused:
        await secrets.values(["cheap"])
    assert refused.value.code == "secret_damaged"
    with pytest.raises(Unavailable):
        await secrets.rekey(PASSPHRASE, ANOTHER)
    assert await secrets.values(["costly"]) == {"costly": "value two"}


async def test_names_and_values_that_cannot_be_kept_are_refused(secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    for name, value, code in (
        ("no spaces", b"value", "invalid_secret_name"),
        ("name", b"", "invalid_secret_value"),
        ("name", b"\xff", "invalid_secret_value"),
        ("name", b"x" * (MOST_SECRET_BYTES + 1), "invalid_secret_value"),
    ):
        with pytest.raises(Invalid) as refused:
            await secrets.put(name, value, description=None)
        assert refused.value.code == code
    assert await secrets.names() == ()


async def test_a_removed_secret_is_not_found_also_while_locked(secrets: Secrets) -> None:
    await secrets.unlock(PASSPHRASE)
    await secrets.put("api-key", VALUE.encode(), description=None)
    await secrets.remove("api-key")
    for attempt in (secrets.values(["api-key"]), secrets.remove("api-key")):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "secret_not_found"
    await secrets.put("another", VALUE.encode(), description=None)
    await secrets.lock()
    await secrets.remove("another")
    assert await secrets.unlock(PASSPHRASE) == 0


async def test_the_key_costs_what_it_should_and_the_event_loop_does_not_wait_for_it(house: House) -> None:
    secrets: SqlSecrets = house.stores.secrets
    unlocking = asyncio.ensure_future(secrets.unlock(PASSPHRASE))
    longest_s, last = 0.0, time.monotonic()
    while not unlocking.done():
        await asyncio.sleep(0.001)
        longest_s, last = max(longest_s, time.monotonic() - last), time.monotonic()
    assert await unlocking == 0
    stored = await house.database.read(
        lambda connection: connection.execute("SELECT algorithm, memory_kib, length(salt) FROM kdf_params").fetchall()
    )
    assert stored == [("argon2id", MEMORY_KIB, 16)]
    assert MEMORY_KIB == 64 * 1024
    started = time.monotonic()
    await secrets.unlock(PASSPHRASE)
    assert longest_s < max(0.5, time.monotonic() - started)


POLICY = SecretPolicy(
    id="p-1",
    label="files",
    secret=compile_glob("files-*"),
    tool=compile_glob("mcp.files.*"),
    host=compile_glob("*.example"),
    agents=AgentMatcher(type=MatcherType.BY_TRUST_LEVEL, level=TrustLevel.TRUSTED),
    expires_at=NOON,
    max_uses=3,
    created_by="operator",
)


async def test_policies_are_kept_whole_in_their_order_and_need_no_key(house: House, secrets: Secrets) -> None:
    named = AgentMatcher(type=MatcherType.BY_NAME_GLOB, pattern=compile_glob("read*"))
    other = SecretPolicy(id="p-0", label="b", secret=POLICY.secret, tool=POLICY.tool, agents=named)
    for each in (POLICY, other, replace(POLICY, label="again")):
        await secrets.add_policy(each)
    again: Secrets = (await house.reopen()).secrets
    assert await again.policies() == (POLICY, other)
    await again.remove_policy("p-1")
    for attempt in (again.remove_policy("p-1"), again.count_use("p-1")):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "policy_not_found"
    assert await again.policies() == (other,)


async def test_a_policy_is_used_no_more_often_than_it_may(secrets: Secrets) -> None:
    await secrets.add_policy(POLICY)
    unlimited = replace(POLICY, id=new_id(), max_uses=None)
    await secrets.add_policy(unlimited)
    outcomes = await asyncio.gather(*(secrets.count_use("p-1") for _ in range(8)), return_exceptions=True)
    assert sorted(each.use_count for each in outcomes if isinstance(each, SecretPolicy)) == [1, 2, 3]
    assert {each.code for each in outcomes if isinstance(each, Forbidden)} == {"policy_exhausted"}
    assert (await secrets.count_use(unlimited.id)).use_count == 1
