from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from borough.config.safety import api_keys, host_and_port, is_loopback, parse_bind, start_plan
from borough.config.sections import AuthSection, KeySection, MtlsSection, RateLimitSection, TlsSection, TownhallSection
from borough.core.errors import Invalid

ROOT = Path("/town")
NOON = datetime(2026, 4, 4, 12, tzinfo=UTC)
LOOPBACK = ip_address("127.0.0.1")
OPEN = ip_address("0.0.0.0")
PHC = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
KEYED = AuthSection(mode="api_key", api_key_hash=PHC)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("localhost", "127.0.0.1"),
        ("LOCALHOST", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::", "::"),
    ],
)
def test_addresses_that_can_be_bound(text: str, address: str) -> None:
    assert parse_bind(text) == ip_address(address)


@pytest.mark.parametrize("text", ["", "example.org", "127.0.0.1:8080", "[::1]:8080", "256.0.0.1", "127.1", "*"])
def test_addresses_that_cannot_be_bound(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_bind(text)
    assert refusal.value.code == "invalid_bind"
    assert refusal.value.resolution


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_what_only_this_machine_reaches(*, address: str, loopback: bool) -> None:
    assert is_loopback(ip_address(address)) is loopback


def test_urls_bracket_ipv6() -> None:
    assert host_and_port(ip_address("::1"), 8080) == "[::1]:8080"
    assert host_and_port(LOOPBACK, 80) == "127.0.0.1:80"


@pytest.mark.parametrize(
    ("bind", "townhall", "code"),
    [
        ("0.0.0.0", TownhallSection(), "unsafe_bind"),
        ("::", TownhallSection(), "unsafe_bind"),
        ("10.0.0.1", TownhallSection(tls=TlsSection(enabled=True)), "unsafe_bind"),
        ("127.0.0.1", TownhallSection(tls=TlsSection(enabled=True)), "tls_incomplete"),
        ("127.0.0.1", TownhallSection(tls=TlsSection(enabled=True, cert_file="c")), "tls_incomplete"),
        ("127.0.0.1", TownhallSection(tls=TlsSection(enabled=True, key_file="k")), "tls_incomplete"),
        ("127.0.0.1", TownhallSection(mtls=MtlsSection(required=True, ca_file="ca")), "mtls_without_tls"),
        (
            "127.0.0.1",
            TownhallSection(tls=TlsSection(enabled=True, cert_file="c", key_file="k"), mtls=MtlsSection(required=True)),
            "mtls_incomplete",
        ),
    ],
)
def test_what_must_not_start(bind: str, townhall: TownhallSection, code: str) -> None:
    with pytest.raises(Invalid) as refusal:
        start_plan(townhall, bind=ip_address(bind), root=ROOT, at=NOON)
    assert refusal.value.code == code
    assert refusal.value.resolution
    assert "\n" not in refusal.value.message


def test_the_default_starts_without_a_word() -> None:
    plan = start_plan(TownhallSection(), bind=LOOPBACK, root=ROOT, at=NOON)
    assert (plan.tls, plan.warnings, plan.rate_limited) == (None, (), False)


def test_tls_files_are_found_from_the_towns_folder() -> None:
    townhall = TownhallSection(
        auth=KEYED,
        tls=TlsSection(enabled=True, cert_file="certs/c.pem", key_file="/etc/k.pem"),
        mtls=MtlsSection(required=True, ca_file="ca.pem"),
    )
    plan = start_plan(townhall, bind=OPEN, root=ROOT, at=NOON)
    assert plan.tls is not None
    assert plan.tls.cert_file == Path("/town/certs/c.pem")
    assert plan.tls.key_file == Path("/etc/k.pem")
    assert plan.tls.ca_file == Path("/town/ca.pem")
    assert plan.tls.client_certificate_required
    assert plan.rate_limited


@pytest.mark.parametrize(
    ("auth", "bind", "words"),
    [
        (AuthSection(mode="oidc"), "127.0.0.1", "no issuer"),
        (AuthSection(mode="oidc", issuer="https://id.example"), "127.0.0.1", "audience"),
        (AuthSection(mode="api_key"), "127.0.0.1", "no key is set"),
        (AuthSection(mode="api_key", api_key_hash="  "), "127.0.0.1", "no key is set"),
        (AuthSection(mode="api_key", api_key_hash="nonsense"), "127.0.0.1", "broken"),
        (
            AuthSection(mode="api_key", keys=(KeySection(id="old", hash=PHC, expires_at=NOON),)),
            "127.0.0.1",
            "no API key is valid now",
        ),
        (KEYED, "10.0.0.1", "API keys only"),
        (KEYED, "10.0.0.1", "without TLS"),
    ],
)
def test_what_its_operator_is_told(auth: AuthSection, bind: str, words: str) -> None:
    plan = start_plan(TownhallSection(auth=auth), bind=ip_address(bind), root=ROOT, at=NOON)
    assert any(words in warning for warning in plan.warnings)


def test_a_sound_key_on_loopback_needs_no_warning() -> None:
    assert start_plan(TownhallSection(auth=KEYED), bind=LOOPBACK, root=ROOT, at=NOON).warnings == ()


@pytest.mark.parametrize(("wanted", "limited"), [(None, False), (True, True), (False, False)])
def test_rate_limits_follow_what_is_said(*, wanted: bool | None, limited: bool) -> None:
    townhall = TownhallSection(rate_limit=RateLimitSection(enabled=wanted))
    assert start_plan(townhall, bind=LOOPBACK, root=ROOT, at=NOON).rate_limited is limited


def test_the_reference_key_comes_first_and_named_ones_follow() -> None:
    auth = AuthSection(api_key_hash=PHC, keys=(KeySection(id="ci", hash=PHC),))
    assert [key.id for key in api_keys(auth)] == ["api_key", "ci"]
