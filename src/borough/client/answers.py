"""A server's answers, read whole: a success as it came, a refusal as the error that it means."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from borough.client.problems import error_from
from borough.core.errors import Unavailable

SUCCESS: Final = range(200, 300)
"""Statuses of requests that were granted."""

_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered, whole; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's document."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Unavailable(
                "the server's answer is not JSON",
                code="bad_answer",
                reason=f"it begins with {self.body[:40]!r}",
                resolution="check that the address is a townhall's, not another program's",
            ) from None


def read_answer(response: http.client.HTTPResponse) -> Answer:
    """Return what was answered, whatever its status; raises ``Unavailable`` (``answer_too_long``)."""
    return Answer(status=response.status, headers=_lowered(response), body=_read(response))


def checked(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """Return a success unread; raise what a refusal means."""
    if response.status not in SUCCESS:
        raise error_from(response.status, _lowered(response), _read(response))
    return response


def _lowered(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _read(response: http.client.HTTPResponse) -> bytes:
    body = response.read(_MAX_BODY_BYTES + 1)
    if len(body) > _MAX_BODY_BYTES:
        raise Unavailable(
            f"the server's answer is longer than {_MAX_BODY_BYTES} bytes",
            code="answer_too_long",
            resolution="ask for less at a time, with --limit",
        )
    return body
