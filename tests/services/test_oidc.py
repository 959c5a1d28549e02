import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from borough.adapters.credentials.https import LARGEST_DOCUMENT_BYTES, fetch_json
from borough.adapters.credentials.jwks import KeySetCache
from borough.adapters.credentials.oidc import OidcTokens
from borough.auth.scopes import Scope
from borough.core.errors import Forbidden, Invalid, Unavailable
from tests.services.issuer import AUDIENCE, Issuer, running_issuer

pytestmark = pytest.mark.anyio
RECENT = 1_000_000_000


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.passed

    def time(self) -> float:
        return time.time() + self.passed


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tokens(issuer: Issuer, clock: Clock | None = None, **options: Any) -> OidcTokens:
    ticking = clock or Clock()
    keys = KeySetCache(
        issuer=issuer.url,
        jwks_url=options.pop("jwks_url", None),
        fetch=fetch_json,
        monotonic=ticking.monotonic,
    )
    return OidcTokens(issuer=issuer.url, audience=AUDIENCE, keys=keys, now=ticking.time, **options)


async def refused(verifier: OidcTokens, token: str) -> str:
    with pytest.raises(Forbidden) as caught:
        await verifier.verify(token)
    assert caught.value.code == "invalid_credentials"
    assert token not in f"{caught.value.message}{caught.value.reason}{caught.value.resolution}" or not token
    return caught.value.reason or ""


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSAKey.generate_key(2048, {"kid": "k"}), "RS256"),
        (RSAKey.generate_key(2048, {"kid": "k"}), "PS256"),
        (ECKey.generate_key("P-256", {"kid": "k"}), "ES256"),
        (ECKey.generate_key("P-384", {"kid": "k"}), "ES384"),
        (OKPKey.generate_key("Ed25519", {"kid": "k"}), "EdDSA"),
        (OKPKey.generate_key("Ed25519", {"kid": "k"}), "Ed25519"),
    ],
)
async def test_a_good_token_of_each_kind_is_let_in(issuer: Issuer, key: Any, algorithm: str) -> None:
    issuer.keys = [key]
    principal = await tokens(issuer).verify(issuer.token(key, algorithm))
    assert principal.id == "oidc:ada"
    assert principal.scopes == {Scope.READ, Scope.WRITE}
    assert issuer.fetched == ["/.well-known/openid-configuration", "/keys"]


async def test_a_key_set_address_needs_no_discovery(issuer: Issuer) -> None:
    await tokens(issuer, jwks_url=f"{issuer.url}/keys").verify(issuer.token())
    assert issuer.fetched == ["/keys"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["a", "b"]}, "audience"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": RECENT}, "expired"),
        ({"exp": None}, "expiry"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"nbf": time.time() + 3600}, "nbf"),
        ({"iat": time.time() + 3600}, "iat"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": "x" * 500}, "subject"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(issuer: Issuer, changed: dict[str, Any], why: str) -> None:
    assert why in await refused(tokens(issuer), issuer.token(**changed))


async def test_one_of_several_audiences_is_enough(issuer: Issuer) -> None:
    assert (await tokens(issuer).verify(issuer.token(aud=["x", AUDIENCE]))).id == "oidc:ada"


@pytest.mark.parametrize(
    ("changed", "let_in"),
    [({"exp": -30}, True), ({"exp": -90}, False), ({"nbf": 30}, True), ({"nbf": 90}, False), ({"iat": 30}, True)],
)
async def test_clocks_may_disagree_by_the_skew(issuer: Issuer, *, changed: dict[str, int], let_in: bool) -> None:
    token = issuer.token(**{name: int(time.time()) + seconds for name, seconds in changed.items()})
    verifier = tokens(issuer, clock_skew_s=60)
    if let_in:
        assert (await verifier.verify(token)).id == "oidc:ada"
    else:
        await refused(verifier, token)


def part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def unsigned(issuer: Issuer, algorithm: str) -> str:
    header = json.dumps({"alg": algorithm, "kid": "rsa-1"})
    return f"{part(header.encode())}.{part(json.dumps(issuer.claims()).encode())}."


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "RS256", ""])
async def test_an_unsigned_token_is_refused(issuer: Issuer, algorithm: str) -> None:
    await refused(tokens(issuer), unsigned(issuer, algorithm))


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
async def test_the_public_key_is_no_shared_secret(issuer: Issuer, algorithm: str) -> None:
    public = issuer.keys[0].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = unsigned(issuer, algorithm).rstrip(".")
    forged = f"{signed}.{part(hmac.digest(public, signed.encode(), f'sha{algorithm[2:]}'))}"
    assert "algorithm" in await refused(tokens(issuer), forged)


async def test_a_shared_secret_in_the_key_set_is_passed_over(issuer: Issuer) -> None:
    secret = OctKey.generate_key(256, {"kid": "shared"})
    issuer.extra_keys = [secret.as_dict(private=True)]
    await refused(tokens(issuer), issuer.token(secret, "HS256"))
    assert (await tokens(issuer).verify(issuer.token())).id == "oidc:ada"


async def test_keys_that_are_not_for_signatures_or_too_short_are_passed_over(issuer: Issuer) -> None:
    encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
    with pytest.warns(SecurityWarning):
        short = RSAKey.generate_key(1024, {"kid": "short"})
    issuer.extra_keys = [encryption.as_dict(private=False), short.as_dict(private=False), {"kty": "EC"}, {"kty": 3}]
    signer = RSAKey.import_key({**encryption.as_dict(private=True), "use": "sig"})
    await refused(tokens(issuer), issuer.token(signer))
    await refused(tokens(issuer), issuer.token(short))


async def test_another_key_with_the_same_id_is_refused(issuer: Issuer) -> None:
    await refused(tokens(issuer), issuer.token(RSAKey.generate_key(2048, {"kid": "rsa-1"})))


async def test_a_key_serves_its_own_algorithm_only(issuer: Issuer) -> None:
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "k", "alg": "RS256"})]
    bare = RSAKey.import_key({k: v for k, v in issuer.keys[0].as_dict(private=True).items() if k != "alg"})
    await refused(tokens(issuer), issuer.token(bare, "PS256"))
    assert (await tokens(issuer).verify(issuer.token(bare, "RS256"))).id == "oidc:ada"


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_a_changed_token_is_refused(issuer: Issuer, part: int) -> None:
    pieces = issuer.token().split(".")
    pieces[part] = pieces[part][:5] + ("A" if pieces[part][5] != "A" else "B") + pieces[part][6:]
    await refused(tokens(issuer), ".".join(pieces))


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "..", "a.b.c.d.e", "x" * 20_000, "e30.e30.", "é.é.é", "bnVsbA.e30.e30"]
)
async def test_nonsense_is_refused(issuer: Issuer, token: str) -> None:
    await refused(tokens(issuer), token)


@pytest.mark.parametrize(
    ("changed", "scopes"),
    [
        ({"scope": None, "scp": ["town.read", "admin"]}, {Scope.READ, Scope.ADMIN}),
        ({"scope": None, "scp": "agent.manage x"}, {Scope.MANAGE}),
        ({"scope": "town.read", "scp": ["town.write"]}, {Scope.READ, Scope.WRITE}),
        ({"scope": None}, set()),
        ({"scope": 7, "scp": [3, None]}, set()),
        ({"scope": "town:read TOWN.READ"}, set()),
    ],
)
async def test_scopes_are_read_as_issuers_write_them(
    issuer: Issuer, changed: dict[str, Any], scopes: set[Scope]
) -> None:
    assert (await tokens(issuer).verify(issuer.token(**changed))).scopes == scopes


async def test_a_required_scope_that_lacks_is_told(issuer: Issuer) -> None:
    verifier = tokens(issuer, required_scopes=["openid", "borough"])
    with pytest.raises(Forbidden) as caught:
        await verifier.verify(issuer.token())
    assert caught.value.code == "insufficient_scope"
    assert "'borough'" in (caught.value.reason or "")
    assert (await verifier.verify(issuer.token(scope="openid borough"))).scopes == set()


async def test_rotated_keys_are_fetched_when_a_token_needs_them(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    old = issuer.token()
    await verifier.verify(old)
    clock.passed += 11
    issuer.keys = [ECKey.generate_key("P-256", {"kid": "ec-2"})]
    assert (await verifier.verify(issuer.token(algorithm="ES256"))).id == "oidc:ada"
    clock.passed += 11
    await refused(verifier, old)


async def test_a_key_replaced_under_the_same_id_is_fetched_after_a_bad_signature(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    await verifier.verify(issuer.token())
    clock.passed += 11
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "rsa-1"})]
    assert (await verifier.verify(issuer.token())).id == "oidc:ada"


async def test_a_storm_of_unknown_keys_is_no_storm_at_the_issuer(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    await verifier.verify(issuer.token())
    before = len(issuer.fetched)
    clock.passed += 11
    strangers = [ECKey.generate_key("P-256", {"kid": f"stranger-{n}"}) for n in range(30)]
    forged = [issuer.token(key, "ES256") for key in strangers]
    outcomes = await asyncio.gather(*(verifier.verify(token) for token in forged), return_exceptions=True)
    assert all(isinstance(outcome, Forbidden) for outcome in outcomes)
    assert issuer.fetched[before:] == ["/.well-known/openid-configuration", "/keys"]
    assert (await verifier.verify(issuer.token(sub="bob"))).id == "oidc:bob"


async def test_keys_are_asked_for_again_after_a_while_and_withdrawn_ones_end(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    token = issuer.token(exp=int(time.time()) + 10_000)
    await verifier.verify(token)
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "other"})]
    clock.passed += 299
    assert (await verifier.verify(token)).id == "oidc:ada"
    clock.passed += 2
    await refused(verifier, token)


async def test_a_remembered_token_ends_when_it_expires(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock, clock_skew_s=0)
    token = issuer.token(exp=int(time.time()) + 100)
    await verifier.verify(token)
    clock.passed += 101
    assert "expired" in await refused(verifier, token)


async def test_a_silent_issuer_is_forgiven_for_an_hour_and_no_longer(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    token = issuer.token(exp=int(time.time()) + 10_000)
    await verifier.verify(token)
    issuer.broken = True
    clock.passed += 3000
    assert (await verifier.verify(token)).id == "oidc:ada"
    clock.passed += 700
    with pytest.raises(Unavailable) as caught:
        await verifier.verify(token)
    assert caught.value.code == "issuer_unavailable"
    assert "500" in (caught.value.reason or "")
    issuer.broken = False
    clock.passed += 11
    assert (await verifier.verify(token)).id == "oidc:ada"


async def test_another_issuers_discovery_is_not_believed(issuer: Issuer) -> None:
    issuer.named = "https://id.example"
    with pytest.raises(Unavailable, match="discovery"):
        await tokens(issuer).verify(issuer.token())


async def test_discovery_cannot_lead_to_an_unprotected_key_set(issuer: Issuer) -> None:
    issuer.jwks_uri = "http://keys.example/keys"
    with pytest.raises(Unavailable, match=r"keys\.example"):
        await tokens(issuer).verify(issuer.token())


async def test_an_endless_document_is_cut_off(issuer: Issuer) -> None:
    issuer.padding = "x" * LARGEST_DOCUMENT_BYTES
    with pytest.raises(Unavailable) as caught:
        await tokens(issuer).verify(issuer.token())
    assert "1 MiB" in (caught.value.reason or "")


async def test_an_issuer_that_is_not_there_is_told(issuer: Issuer) -> None:
    verifier = OidcTokens(issuer="http://127.0.0.1:1", audience=AUDIENCE)
    with pytest.raises(Unavailable) as caught:
        await verifier.verify(issuer.token())
    assert caught.value.code == "issuer_unavailable"


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example",
        "ftp://127.0.0.1",
        "https://",
        "nonsense",
        "https://u:p@id.example",
        "http://127.0.0.1.evil.example",
    ],
)
async def test_keys_come_over_tls_or_from_this_machine(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        OidcTokens(issuer=url, audience=AUDIENCE)
    assert caught.value.code == "insecure_issuer"


@pytest.mark.parametrize("algorithm", ["HS256", "none", "ES256K", "rs256"])
async def test_only_sound_algorithms_can_be_configured(algorithm: str) -> None:
    with pytest.raises(Invalid) as caught:
        OidcTokens(issuer="https://id.example", audience=AUDIENCE, algorithms=[algorithm])
    assert caught.value.code == "unsafe_algorithm"


async def test_an_algorithm_that_is_not_configured_is_refused(issuer: Issuer) -> None:
    await refused(tokens(issuer, algorithms=["ES256"]), issuer.token())
