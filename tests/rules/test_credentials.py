from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.auth.credentials import (
    ApiKey,
    check_phc,
    format_key,
    is_usable,
    known_scopes,
    presented,
    same_secret,
    scopes_of,
    usable_keys,
)
from borough.auth.scopes import ALL_SCOPES, Scope
from borough.core.errors import Invalid

NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PHC = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "Bearer   abc  "}, "abc"),
        ({"x-api-key": " abc "}, "abc"),
        ({"authorization": "Bearer wrong", "x-api-key": "right"}, "wrong"),
        ({"authorization": "bearer abc"}, None),
        ({"authorization": "bearer abc", "x-api-key": "key"}, "key"),
        ({"authorization": "Basic YTpi", "x-api-key": "key"}, "key"),
        ({"authorization": "Bearer "}, None),
        ({"x-api-key": "  "}, None),
    ],
)
def test_which_credential_counts(headers: dict[str, str], secret: str | None) -> None:
    came = presented(headers)
    assert (came.secret if came else None) == secret


def test_a_presented_credential_never_shows_itself() -> None:
    assert "abc" not in repr(presented({"authorization": "Bearer abc"}))
    assert "argon2" not in repr(ApiKey(id="a", phc=PHC))


def test_a_key_is_64_hex_characters() -> None:
    assert format_key(bytes(range(32))) == "".join(f"{n:02x}" for n in range(32))
    with pytest.raises(ValueError, match="32"):
        format_key(b"short")


def test_no_scopes_means_all_four() -> None:
    assert scopes_of(()) == ALL_SCOPES
    assert scopes_of(["town.read"]) == {Scope.READ}
    with pytest.raises(Invalid) as refusal:
        scopes_of(["town:read"])
    assert refusal.value.code == "unknown_scope"


def test_a_tokens_foreign_scopes_mean_nothing_and_none_is_none() -> None:
    assert known_scopes(["openid", "town.read"]) == {Scope.READ}
    assert known_scopes([]) == frozenset()


@pytest.mark.parametrize(
    ("not_before", "expires_at", "usable"),
    [
        (None, None, True),
        (NOON, None, True),
        (NOON + HOUR, None, False),
        (None, NOON, False),
        (None, NOON + HOUR, True),
        (NOON - HOUR, NOON + HOUR, True),
    ],
)
def test_a_key_holds_from_its_start_until_just_before_its_end(
    *, not_before: datetime | None, expires_at: datetime | None, usable: bool
) -> None:
    key = ApiKey(id="a", phc=PHC, not_before=not_before, expires_at=expires_at)
    assert is_usable(key, at=NOON) is usable
    assert usable_keys([key], at=NOON) == ((key,) if usable else ())


def test_principals_tell_keys_apart() -> None:
    assert ApiKey(id="api_key", phc=PHC).principal.id == "api_key"
    assert ApiKey(id="ci", phc=PHC, scopes=frozenset({Scope.READ})).principal.id == "api_key:ci"


@given(st.text(max_size=50), st.text(max_size=50))
def test_secrets_compare_as_texts_do(left: str, right: str) -> None:
    assert same_secret(left, left)
    assert same_secret(left, right) is (left == right)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "...",
        PHC[:-40],
        PHC.replace("argon2id", "argon2i"),
        PHC.replace("v=19", "v=16"),
        PHC.replace("m=19456", "m=99999999"),
        PHC.replace("t=2", "t=1000"),
        PHC.replace("p=1", "p=0"),
        PHC + "\n",
    ],
)
def test_what_is_no_bearable_hash_is_refused(broken: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_phc(broken)
    assert refusal.value.code == "invalid_hash"
    assert check_phc(PHC) == PHC
