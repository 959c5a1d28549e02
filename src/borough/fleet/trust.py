"""Trust between a controller and a host: what the host hands out to be joined, and what the controller keeps of it.

A join token carries the fingerprint of the host's certificate. Whoever has the token knows the host before the first
byte is sent, and the token goes to no other. A token without fingerprint is one of a host that speaks plain HTTP.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from borough.core.errors import Invalid

TOKEN_LIFETIME: Final = timedelta(days=1)
"""How long a join token is good for; the host has a new one afterwards."""
NOT_ITSELF: Final = frozenset({"host_certificate_changed", "host_tls_failed"})
"""What is told of an address where another answers than the host that was joined there: somebody has to look."""
_PLAIN: Final = "plain"
_TOKEN: Final = re.compile(r"bjt_([0-9]{1,11})\.([0-9a-f]{64}|plain)\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTrust:
    """What a controller keeps of a host that it has joined."""

    credential: str = field(repr=False)
    """The controller's own at this host."""
    fingerprint: str | None
    """SHA-256 of the host's certificate (DER) in hexadecimal; ``None``: it speaks plain HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A host's invitation, good once."""

    secret: str = field(repr=False)
    """43 characters of base64url."""
    expires_at: datetime
    """To the second."""
    fingerprint: str | None
    """SHA-256 of the host's certificate (DER) in hexadecimal; ``None``: the host speaks plain HTTP."""

    @property
    def text(self) -> str:
        """Return the token as it is copied; ``parse_join_token`` reads it."""
        return f"bjt_{int(self.expires_at.timestamp())}.{self.fingerprint or _PLAIN}.{self.secret}"


def parse_join_token(text: str) -> JoinToken:
    """Return the token that ``text`` is.

    Raises:
        Invalid: it is none, or not a whole one (``invalid_join_token``). What it is does not show in the error.
    """
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise Invalid(
            "this is not a host's join token, or not a whole one",
            code="invalid_join_token",
            resolution="copy it again from the host: tt-agent --invite prints it",
        )
    fingerprint = None if found[2] == _PLAIN else found[2]
    return JoinToken(secret=found[3], expires_at=datetime.fromtimestamp(int(found[1]), UTC), fingerprint=fingerprint)
