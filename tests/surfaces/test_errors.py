"""Kinds, codes and statuses; the one shape of errors."""

import json

import pytest

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.http.errors import (
    STATUS_BY_CODE,
    FieldError,
    failure_of,
    internal_failure,
    problem,
    status_of,
    title_of,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("no"), 422),
        (Forbidden("no"), 403),
        (NotFound("no"), 404),
        (Conflict("no"), 409),
        (Unavailable("no"), 503),
        (Forbidden("no", code="authentication_required"), 401),
        (Forbidden("no", code="invalid_credentials"), 401),
        (Invalid("no", code="malformed_json"), 400),
        (Invalid("no", code="too_large"), 413),
        (Unavailable("no", code="rate_limited"), 429),
        (Unavailable("no", code="request_timeout"), 408),
        (BoroughError("no"), 500),
    ],
)
def test_each_kind_has_a_status_and_some_codes_their_own(error: BoroughError, status: int) -> None:
    assert status_of(error) == status


def test_a_route_has_the_last_word() -> None:
    assert status_of(NotFound("no", code="not_in_backlog"), {"not_in_backlog": 409}) == 409
    assert status_of(NotFound("no", code="other"), {"not_in_backlog": 409}) == 404


def test_every_status_has_a_title() -> None:
    assert all(title_of(status) for status in STATUS_BY_CODE.values())
    assert (title_of(413), title_of(422)) == ("Content Too Large", "Unprocessable Content")


def test_a_problem_has_the_members_of_rfc_9457_and_ours() -> None:
    error = Invalid(
        "the body does not fit",
        code="invalid_body",
        reason="why",
        resolution="what next",
        details={"errors": [FieldError(pointer="#/name", detail="too long")], "limit": 5, "names": ("a", "b")},
    )
    rendered = problem(failure_of(error, request_id="r-1"))
    assert (rendered.status, rendered.content_type) == (422, "application/problem+json")
    assert json.loads(rendered.body) == {
        "type": "urn:borough:error:invalid_body",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "the body does not fit",
        "code": "invalid_body",
        "request_id": "r-1",
        "reason": "why",
        "resolution": "what next",
        "errors": [{"detail": "too long", "pointer": "#/name"}],
        "details": {"limit": 5, "names": ["a", "b"]},
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Forbidden("a", code="authentication_required"), "Authentication required"),
        (Forbidden("a", code="invalid_credentials"), "Invalid credentials"),
        (Forbidden("a", code="insufficient_scope"), "Insufficient permissions"),
        (Unavailable("a", code="rate_limited"), "Rate limit exceeded"),
        (Forbidden("in other words", code="other"), "in other words"),
    ],
)
def test_older_clients_find_their_member(error: BoroughError, text: str) -> None:
    assert json.loads(problem(failure_of(error, request_id="r")).body)["error"] == text


def test_headers_follow_from_the_error() -> None:
    def headers(error: BoroughError) -> dict[str, str]:
        return dict(failure_of(error, request_id="r").headers)

    assert headers(Unavailable("no")) == {"retry-after": "1"}
    assert headers(Unavailable("no", details={"retry_after_s": 2.1})) == {"retry-after": "3"}
    assert headers(Conflict("no", details={"retry_after_s": 1, "headers": {"x": "y"}})) == {
        "retry-after": "1",
        "x": "y",
    }
    assert headers(Forbidden("no", code="authentication_required"))["www-authenticate"] == 'Bearer realm="borough"'
    assert headers(NotFound("no")) == {}


def test_a_service_may_point_at_a_member() -> None:
    failure = failure_of(Invalid("not a UUID", details={"pointer": "/parent_id"}), request_id="r")
    assert failure.errors == (FieldError(pointer="#/parent_id", detail="not a UUID"),)
    assert failure.details == {}


def test_what_nobody_expected_tells_nothing_of_the_inside() -> None:
    told = json.loads(problem(internal_failure("r-9")).body)
    assert (told["status"], told["code"], told["request_id"]) == (500, "internal_error", "r-9")
    assert "resolution" in told
