"""What SQLite says went wrong, as an error of ours."""

from typing import Final

import apsw

from borough.core.errors import Unavailable

STORE_UNAVAILABLE: Final = "store_unavailable"

MISTAKES: Final = (
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.RangeError,
    apsw.BindingsError,
    apsw.MisuseError,
)
"""What a wrong statement or value of ours raises. Repeating cannot help: these are shown as they are."""

_WAYS_OUT: Final[tuple[tuple[type[apsw.Error], str, str], ...]] = (
    (apsw.FullError, "the disk is full", "make room on the file system of {path}; nothing acknowledged is lost"),
    (apsw.IOError, "reading or writing failed", "look at the disk below {path} and at the kernel's log"),
    (apsw.ReadOnlyError, "the file or its folder is read-only", "make {path} and its folder writable for this user"),
    (apsw.PermissionsError, "access is denied", "make {path} and its folder writable for this user"),
    (apsw.CantOpenError, "the file cannot be opened", "check that {path} is there and belongs to this user"),
    (apsw.BusyError, "another program holds it", "end what else has {path} open, then try again"),
    (apsw.LockedError, "another program holds it", "end what else has {path} open, then try again"),
    (apsw.NotADBError, "the file is no SQLite database", "move {path} away, or put back a backup of it"),
    (apsw.CorruptError, "the file is damaged", "stop, keep a copy of {path} as it is, and put back a backup"),
    (apsw.NoMemError, "this machine is out of memory", "give it more, or end something else"),
)


def unavailable(error: apsw.Error, path: str) -> Unavailable:
    """Return what ``error`` means for those who use the store at ``path``."""
    for kind, reason, resolution in _WAYS_OUT:
        if isinstance(error, kind):
            return store_unavailable(reason=f"{reason} ({error})", resolution=resolution.format(path=path))
    return store_unavailable(reason=str(error), resolution=f"look at {path} and at the log of this program")


def store_unavailable(*, reason: str, resolution: str) -> Unavailable:
    """Return the error of a store that cannot be read or written now."""
    return Unavailable(
        "the store cannot be read or written", code=STORE_UNAVAILABLE, reason=reason, resolution=resolution
    )
