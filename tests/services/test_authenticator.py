import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from borough.adapters.credentials.argon2 import ArgonKeys, new_api_key
from borough.adapters.credentials.oidc import OidcTokens
from borough.adapters.credentials.operator import OperatorToken, operator_token
from borough.auth.credentials import ApiKey, check_phc
from borough.auth.principals import LOCAL
from borough.auth.scopes import ALL_SCOPES, Scope
from borough.auth.tokens import SignedTokens
from borough.core.errors import Forbidden, Unavailable
from borough.core.ids import AgentId, derived_id
from borough.http.auth import Authenticator, BearerVerifier, LoginFailure, Mode
from tests.services.issuer import AUDIENCE, running_issuer

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY, PHC = new_api_key()
OTHER_KEY, OTHER_PHC = new_api_key()
WORKERS = SignedTokens(b"k" * 32)
WORKER = WORKERS.mint(agent_id=AgentId(derived_id("ada")), incarnation=1)


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = NOON
        self.seconds = 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(clock: Clock) -> AsyncIterator[ArgonKeys]:
    made = ArgonKeys([ApiKey(id="api_key", phc=PHC)], now=lambda: clock.now, monotonic=lambda: clock.seconds)
    yield made
    made.close()


@pytest.fixture
def operator(tmp_path: Path) -> OperatorToken:
    return operator_token(tmp_path)


class Door:
    """An authenticator and what it reported."""

    def __init__(self, mode: Mode, operator: OperatorToken, verifier: BearerVerifier | None) -> None:
        self.failures: list[LoginFailure] = []
        self.authenticate = Authenticator(
            mode=mode, workers=WORKERS, operator=operator, verifier=verifier, on_failure=self.failures.append
        )

    async def bearer(self, secret: str) -> str:
        return (await self.authenticate({"authorization": f"Bearer {secret}"}, "192.0.2.1")).id

    async def refusal(self, headers: dict[str, str]) -> Forbidden:
        with pytest.raises(Forbidden) as caught:
            await self.authenticate(headers, "192.0.2.1")
        assert caught.value.resolution
        return caught.value


# -- the doors ---------------------------------------------------------------------------------------------------------


async def test_without_a_mode_everybody_is_local(operator: OperatorToken) -> None:
    door = Door("none", operator, None)
    assert await door.authenticate({}, "127.0.0.1") == LOCAL
    assert await door.authenticate({"x-api-key": "whatever"}, "127.0.0.1") == LOCAL
    assert door.failures == []


async def test_from_inside_a_machine_nobody_is_local(operator: OperatorToken) -> None:
    door = Door("none", operator, None)
    inside = {"host": "borough.internal", "x-borough-machine": "1b9d6bcd-bbf"}
    for headers, code in (
        (inside, "authentication_required"),
        ({**inside, "host": "Borough.Internal.:80"}, "authentication_required"),
        ({**inside, "authorization": "Bearer anything"}, "invalid_credentials"),
    ):
        assert (await door.refusal(headers)).code == code
    worker = await door.authenticate({**inside, "authorization": f"Bearer {WORKER}"}, "machine 1b9d6bcd-bbf")
    assert worker.worker is not None


@pytest.mark.parametrize("mode", ["none", "api_key", "oidc"])
async def test_workers_and_the_operator_are_known_in_every_mode(mode: Mode, operator: OperatorToken) -> None:
    door = Door(mode, operator, None)
    assert await door.bearer(WORKER) == f"worker:{derived_id('ada')}"
    assert await door.bearer(operator.reveal()) == "operator"
    assert (await door.authenticate({"x-api-key": operator.reveal()}, "h")).scopes == ALL_SCOPES


@pytest.mark.parametrize("mode", ["none", "api_key", "oidc"])
@pytest.mark.parametrize("wrong", [WORKER[:-1], "bwt_", "bop_" + "0" * 64, "bop_"])
async def test_a_wrong_token_is_refused_in_every_mode_and_reported(
    mode: Mode, wrong: str, operator: OperatorToken
) -> None:
    door = Door(mode, operator, None)
    assert (await door.refusal({"authorization": f"Bearer {wrong}"})).code == "invalid_credentials"
    (failure,) = door.failures
    assert failure.kind == ("worker" if wrong.startswith("bwt_") else "operator")
    assert failure.client_host == "192.0.2.1"
    assert len(wrong) < 10 or wrong not in repr(failure)


async def test_a_key_in_either_header_opens(operator: OperatorToken, keys: ArgonKeys) -> None:
    door = Door("api_key", operator, keys)
    assert await door.bearer(KEY) == "api_key"
    assert (await door.authenticate({"x-api-key": KEY}, "h")).id == "api_key"
    assert door.failures == []


async def test_no_key_and_a_wrong_key_are_told_apart_and_reported(operator: OperatorToken, keys: ArgonKeys) -> None:
    door = Door("api_key", operator, keys)
    assert (await door.refusal({})).code == "authentication_required"
    assert (await door.refusal({"authorization": f"bearer {KEY}"})).code == "authentication_required"
    assert (await door.refusal({"x-api-key": OTHER_KEY})).code == "invalid_credentials"
    wrong_wins = {"authorization": f"Bearer {OTHER_KEY}", "x-api-key": KEY}
    assert (await door.refusal(wrong_wins)).code == "invalid_credentials"
    assert (await door.refusal({"x-api-key": "x" * 20_000})).code == "invalid_credentials"
    assert [failure.kind for failure in door.failures] == ["absent", "absent", "api_key", "api_key", "api_key"]
    assert OTHER_KEY not in repr(door.failures)


@pytest.mark.parametrize("mode", ["api_key", "oidc"])
async def test_a_mode_without_its_settings_lets_nobody_in_and_says_what_lacks(
    mode: Mode, operator: OperatorToken
) -> None:
    refusal = await Door(mode, operator, None).refusal({"authorization": f"Bearer {KEY}"})
    assert refusal.code == "authentication_required"
    assert "tinytown.toml" in (refusal.resolution or "")


async def test_an_issuers_token_opens_and_a_key_does_not(operator: OperatorToken) -> None:
    with running_issuer() as issuer:
        door = Door("oidc", operator, OidcTokens(issuer=issuer.url, audience=AUDIENCE))
        assert await door.bearer(issuer.token()) == "oidc:ada"
        assert (await door.refusal({"authorization": f"Bearer {KEY}"})).code == "invalid_credentials"
        assert door.failures[0].kind == "oidc"


# -- API keys ----------------------------------------------------------------------------------------------------------


def test_a_new_key_has_the_form_of_the_reference() -> None:
    assert len(bytes.fromhex(KEY)) == 32
    assert check_phc(PHC).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_argon2_runs_once_for_a_key_that_comes_often(keys: ArgonKeys) -> None:
    for _ in range(50):
        assert (await keys.verify(KEY)).id == "api_key"
    assert keys.verifications == 1


async def test_argon2_runs_once_for_many_at_once_and_leaves_the_loop_free(keys: ArgonKeys) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)

    watcher = asyncio.ensure_future(watch())
    started = time.monotonic()
    assert {principal.id for principal in await asyncio.gather(*(keys.verify(KEY) for _ in range(20)))} == {"api_key"}
    took = time.monotonic() - started
    watcher.cancel()
    assert keys.verifications == 1
    assert longest < max(took, 0.1)


async def test_a_wrong_key_is_remembered_too_but_not_for_long(keys: ArgonKeys, clock: Clock) -> None:
    for _ in range(5):
        with pytest.raises(Forbidden):
            await keys.verify(OTHER_KEY)
    assert keys.verifications == 1
    clock.seconds += 11
    with pytest.raises(Forbidden):
        await keys.verify(OTHER_KEY)
    assert keys.verifications == 2


async def test_a_revoked_key_ends_at_the_next_request(keys: ArgonKeys) -> None:
    await keys.verify(KEY)
    keys.replace_keys([ApiKey(id="api_key", phc=OTHER_PHC)])
    with pytest.raises(Forbidden):
        await keys.verify(KEY)
    assert (await keys.verify(OTHER_KEY)).id == "api_key"


async def test_changed_scopes_count_at_the_next_request(keys: ArgonKeys) -> None:
    assert (await keys.verify(KEY)).scopes == ALL_SCOPES
    keys.replace_keys([ApiKey(id="api_key", phc=PHC, scopes=frozenset({Scope.READ}))])
    assert (await keys.verify(KEY)).scopes == {Scope.READ}


async def test_old_and_new_keys_hold_side_by_side_while_one_is_rotated(keys: ArgonKeys, clock: Clock) -> None:
    keys.replace_keys(
        [ApiKey(id="old", phc=PHC, expires_at=NOON + HOUR), ApiKey(id="new", phc=OTHER_PHC, not_before=NOON)]
    )
    assert (await keys.verify(KEY)).id == "api_key:old"
    assert (await keys.verify(OTHER_KEY)).id == "api_key:new"
    clock.now = NOON + HOUR
    with pytest.raises(Forbidden):
        await keys.verify(KEY)
    assert (await keys.verify(OTHER_KEY)).id == "api_key:new"


async def test_a_key_opens_from_its_first_moment_even_if_it_was_tried_before(keys: ArgonKeys, clock: Clock) -> None:
    keys.replace_keys([ApiKey(id="soon", phc=PHC, not_before=NOON + HOUR)])
    with pytest.raises(Forbidden):
        await keys.verify(KEY)
    clock.now = NOON + HOUR
    assert (await keys.verify(KEY)).id == "api_key:soon"


@pytest.mark.parametrize(
    "broken",
    ["", "nonsense", PHC[:-5], PHC.replace("m=19456", "m=99999999")],
    ids=["empty", "nonsense", "cut off", "of too much memory"],
)
async def test_a_broken_hash_opens_for_nobody_and_hurts_nobody_else(keys: ArgonKeys, broken: str) -> None:
    keys.replace_keys([ApiKey(id="broken", phc=broken), ApiKey(id="good", phc=OTHER_PHC)])
    with pytest.raises(Forbidden):
        await keys.verify(KEY)
    assert (await keys.verify(OTHER_KEY)).id == "api_key:good"


async def test_a_flood_of_wrong_keys_is_turned_away_before_it_costs(keys: ArgonKeys) -> None:
    outcomes = await asyncio.gather(*(keys.verify(f"{n:064x}") for n in range(60)), return_exceptions=True)
    assert sum(isinstance(outcome, Unavailable) for outcome in outcomes) == 60 - 32
    assert sum(isinstance(outcome, Forbidden) for outcome in outcomes) == 32


async def test_a_caller_who_leaves_does_not_take_the_answer_from_the_others(keys: ArgonKeys) -> None:
    leaving, staying = (asyncio.ensure_future(keys.verify(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).id == "api_key"
    assert keys.verifications == 1
