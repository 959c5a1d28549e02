"""Token buckets, failed logins, and whose address counts."""

from ipaddress import ip_network

import pytest

from borough.core.errors import Forbidden, Unavailable
from borough.http.limits import LoginThrottle, RateLimits, TokenBuckets, client_address
from borough.http.surfaces import Policies
from tests.surfaces.asgi import ask
from tests.surfaces.demo import DemoState, as_, demo_table


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_empties_and_fills_evenly(clock: Clock) -> None:
    buckets = TokenBuckets(60, now=clock)
    assert [buckets.take("a") for _ in range(60)][-1] == 0
    assert buckets.take("a") < 0
    assert buckets.wait_s("a") == pytest.approx(1.0)
    clock.at += 1.0
    assert buckets.take("a") == pytest.approx(0)
    clock.at += 3600
    assert buckets.left("a") == 60


def test_a_full_bucket_holds_the_burst_and_never_more_than_a_minutes_worth(clock: Clock) -> None:
    small = TokenBuckets(60, burst=2, now=clock)
    assert [small.take("a") for _ in range(3)] == [1, 0, -1]
    clock.at += 3600
    assert small.left("a") == 2
    assert TokenBuckets(5, burst=300, now=clock).left("a") == 5


def test_callers_have_buckets_of_their_own(clock: Clock) -> None:
    buckets = TokenBuckets(1, now=clock)
    assert buckets.take("a") == 0
    assert buckets.take("a") < 0
    assert buckets.take("b") == 0


def test_the_number_of_callers_is_bounded_and_the_longest_unused_goes_first(clock: Clock) -> None:
    buckets = TokenBuckets(2, max_callers=2, now=clock)
    buckets.take("a")
    buckets.take("b")
    buckets.take("a")
    buckets.take("c")
    assert len(buckets) == 2
    assert buckets.take("a") < 0
    assert buckets.left("b") == 2


def test_headers_tell_policy_and_rest(clock: Clock) -> None:
    limits = RateLimits(reads_per_minute=60, writes_per_minute=1, now=clock)
    assert limits.charge("a", read=True) == [
        (b"ratelimit-policy", b'"reads";q=60;w=60'),
        (b"ratelimit", b'"reads";r=59;t=0'),
    ]
    assert limits.charge("a", read=False)[1] == (b"ratelimit", b'"writes";r=0;t=60')
    with pytest.raises(Unavailable) as caught:
        limits.charge("a", read=False)
    assert (caught.value.code, caught.value.details["retry_after_s"]) == ("rate_limited", 60)


def test_guessing_is_slowed_down_but_known_credentials_pass(clock: Clock) -> None:
    throttle = LoginThrottle(failures_per_minute=2, now=clock)
    throttle.succeeded({"authorization": "Bearer good"})
    for _ in range(2):
        throttle.check("10.0.0.1", {"authorization": "Bearer guess"})
        throttle.failed("10.0.0.1", Forbidden("no", code="invalid_credentials"))
    with pytest.raises(Unavailable) as caught:
        throttle.check("10.0.0.1", {"authorization": "Bearer another guess"})
    assert caught.value.details["retry_after_s"] == 30
    throttle.check("10.0.0.1", {"authorization": "Bearer good"})
    throttle.check("10.0.0.2", {"authorization": "Bearer guess"})
    clock.at += 31
    throttle.check("10.0.0.1", {"authorization": "Bearer another guess"})


def test_sending_no_credential_is_no_guess(clock: Clock) -> None:
    throttle = LoginThrottle(failures_per_minute=1, now=clock)
    for _ in range(3):
        throttle.failed("10.0.0.1", Forbidden("no", code="authentication_required"))
    throttle.check("10.0.0.1", {"x-api-key": "first guess"})


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.0.0.9", None, "10.0.0.9"),
        ("10.0.0.9", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.9", "6.6.6.6, 1.2.3.4, 10.0.0.8", "1.2.3.4"),
        ("10.0.0.9", "6.6.6.6, nonsense, 10.0.0.8", "10.0.0.8"),
        ("10.0.0.9", "10.0.0.8", "10.0.0.8"),
        ("10.0.0.9", "2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "1.2.3.4", "192.0.2.1"),
        ("", "1.2.3.4", ""),
    ],
)
def test_forwarded_addresses_count_only_from_trusted_proxies(peer: str, forwarded: str | None, address: str) -> None:
    assert client_address(peer, forwarded, [ip_network("10.0.0.0/8")]) == address
    assert client_address(peer, forwarded, []) == peer


@pytest.mark.anyio
async def test_a_server_with_limits_answers_429_for_each_caller_alone() -> None:
    table = demo_table(DemoState(), Policies(limits=RateLimits(reads_per_minute=2, writes_per_minute=1)))
    first = await ask(table, "GET", "/things", headers=as_("reader"))
    assert first.headers["ratelimit"] == '"reads";r=1;t=0'
    await ask(table, "GET", "/things", headers=as_("reader"))
    refused = await ask(table, "GET", "/things", headers=as_("reader"))
    assert refused.status == 429
    assert refused.headers["retry-after"] == "30"
    assert refused.headers["ratelimit"] == '"reads";r=0;t=30'
    assert refused.json()["error"] == "Rate limit exceeded"
    assert (await ask(table, "GET", "/things", headers=as_("other"))).status == 200
    assert (await ask(table, "GET", "/health", client="10.1.1.1")).status == 200


@pytest.mark.anyio
async def test_workers_routes_are_not_counted() -> None:
    table = demo_table(DemoState(), Policies(limits=RateLimits(writes_per_minute=1)))
    for _ in range(3):
        got = await ask(table, "POST", "/work", headers=as_("worker"))
        assert got.status == 200
        assert "ratelimit" not in got.headers


@pytest.mark.anyio
async def test_a_server_throttles_failed_logins_by_address() -> None:
    table = demo_table(DemoState(), Policies(logins=LoginThrottle(failures_per_minute=1)))
    assert (await ask(table, "GET", "/things", headers=as_("reader"))).status == 200
    assert (await ask(table, "GET", "/things", headers=as_("guess"))).status == 401
    assert (await ask(table, "GET", "/things", headers=as_("guess"))).status == 429
    assert (await ask(table, "GET", "/things", headers=as_("reader"))).status == 200
    assert (await ask(table, "GET", "/things", headers=as_("guess"), client="10.0.0.7")).status == 401


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    time_s = 0.0
    buckets = TokenBuckets(60, burst=5, now=lambda: time_s)
    assert [buckets.take("ada") >= 0 for _ in range(6)] == [True] * 5 + [False]
    time_s = 3600.0
    assert [buckets.take("ada") >= 0 for _ in range(6)] == [True] * 5 + [False]
