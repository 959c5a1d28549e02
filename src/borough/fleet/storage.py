"""Storage backends: files with copy-on-write, or ZFS volumes."""

from enum import StrEnum

from borough.core.errors import Invalid


class Storage(StrEnum):
    """Where disks are kept."""

    FILE = "file"
    ZVOL = "zvol"


ALIASES = {"raw": Storage.FILE, "zfs": Storage.ZVOL}


def parse_storage(text: str) -> Storage:
    """Return the backend that is meant; the reference's other names are understood, only the canonical is shown.

    Raises:
        Invalid: there is no such backend (``unknown_storage``).
    """
    word = text.strip().lower()
    if word in ALIASES:
        return ALIASES[word]
    try:
        return Storage(word)
    except ValueError:
        raise Invalid(
            f"there is no storage {text[:40]!r}",
            code="unknown_storage",
            resolution="choose file (also: raw) or zvol (also: zfs)",
        ) from None
