"""Time: aware datetimes inside, whole milliseconds in stores, RFC 3339 with ``Z`` on the wire."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)


def from_ms(milliseconds: int) -> datetime:
    """Return the moment ``milliseconds`` after the epoch."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_ms(moment: datetime) -> int:
    """Return whole milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)


def rfc3339(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 in UTC with milliseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
