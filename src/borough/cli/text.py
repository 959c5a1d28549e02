"""Texts from elsewhere made fit for a terminal: harmless, of known width, cut to measure, in human words."""

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final

_WIDE: Final = frozenset({"W", "F"})
_JOINERS: Final = frozenset("\u200c\u200d")
"""Format characters that scripts and emoji need and that cannot reorder or hide anything."""
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_KIB: Final = 1024


def harmless(text: str) -> str:
    """Return ``text`` on one line, with everything that could steer a terminal shown as an escape."""
    return "".join(_shown(character, keep="") for character in text)


def harmless_block(text: str) -> str:
    """Return ``text`` with its lines and tabs kept and everything else that could steer a terminal escaped."""
    return "".join(_shown(character, keep="\n\t") for character in text.replace("\r\n", "\n").replace("\r", "\n"))


def _shown(character: str, *, keep: str) -> str:
    if character in keep or character in _JOINERS:
        return character
    if character == "\n":
        return "⏎"
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character


def width(text: str) -> int:
    """Return how many columns ``text`` takes."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def shortened(text: str, columns: int) -> str:
    """Return ``text`` in at most ``columns`` columns, with an ellipsis where it was cut."""
    if width(text) <= columns:
        return text
    kept, used = "", 0
    for character in text:
        used += _columns(character)
        if used > columns - 1:
            break
        kept += character
    return f"{kept}…"


def padded(text: str, columns: int) -> str:
    """Return ``text`` followed by blanks up to ``columns``."""
    return text + " " * (columns - width(text))


def duration(length: timedelta) -> str:
    """Return a length of time in at most two units, such as ``850 ms``, ``12 s``, ``3 min 5 s`` or ``4 d 3 h``."""
    seconds = abs(length.total_seconds())
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    for unit, name, part, part_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            return f"{whole} {name} {rest // part} {part_name}" if rest // part else f"{whole} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{int(seconds)} s"  # noqa: PLR2004 - below ten, tenths matter


def moment(timestamp: str | None) -> datetime | None:
    """Return a server's timestamp as a moment; ``None`` for none or for something else."""
    if not timestamp:
        return None
    try:
        parsed = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ago(timestamp: str | None, now: datetime) -> str:
    """Return how long ago, or in how much time, a server's timestamp is."""
    at = moment(timestamp)
    if at is None:
        return timestamp or ""
    return f"in {duration(at - now)}" if at > now else f"{duration(now - at)} ago"


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
