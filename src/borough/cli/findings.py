"""What ``doctor`` finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``state``: ``ok``, ``no`` (needed and missing) or ``note`` (works without)."""

    what: str
    state: str
    detail: str
    mend: str | None = None
