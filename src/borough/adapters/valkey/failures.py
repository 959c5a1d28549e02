"""What the store's failures mean: which of them repeating heals, and what to tell people about the others.

Texts are those of Valkey 7 to 9 and Redis 7: an error reply starts with a word in capitals, of which valkey-py makes
classes for some and leaves the rest as they are.
"""

from enum import Enum

from valkey import exceptions as valkey_errors

from borough.core.errors import Unavailable


class Remedy(Enum):
    """What to do about a failed call."""

    REPEAT = "repeat"
    """The server is away, starts, changes roles or is busy: the same call again, later."""
    LOAD_LIBRARY = "load library"
    """The server knows none of our functions: it was emptied or replaced."""
    GIVE_UP = "give up"


_TRANSIENT_TYPES = (
    valkey_errors.ConnectionError,
    valkey_errors.TimeoutError,
    valkey_errors.ReadOnlyError,
    valkey_errors.ClusterError,
    valkey_errors.TryAgainError,
    valkey_errors.AskError,
    valkey_errors.SlotNotCoveredError,
    valkey_errors.InvalidResponse,
    OSError,
)
_TRANSIENT_WORDS = ("BUSY ", "LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "NOREPLICAS ", "TRYAGAIN ", "UNBLOCKED ")
_REFUSED_TYPES = (
    valkey_errors.AuthenticationError,
    valkey_errors.AuthorizationError,
    valkey_errors.AuthenticationWrongNumberOfArgsError,
    valkey_errors.NoPermissionError,
)
_REFUSED_WORDS = ("NOAUTH ", "WRONGPASS ", "NOPERM ", "DENIED ")
_FULL_WORDS = ("OOM ", "MISCONF ")


def innermost(error: BaseException) -> BaseException:
    """Return what valkey-py wrapped: over a Unix socket a refused login comes inside a ``ConnectionError``."""
    while isinstance(error.__cause__, valkey_errors.ValkeyError):
        error = error.__cause__
    return error


def is_login_failure(error: BaseException) -> bool:
    """Tell whether the server refused who we say we are."""
    error = innermost(error)
    return isinstance(error, _REFUSED_TYPES[:3]) or str(error).startswith(("NOAUTH ", "WRONGPASS "))


def remedy_for(error: BaseException) -> Remedy:
    """Say what to do about ``error``."""
    error = innermost(error)
    text = str(error)
    if isinstance(error, _REFUSED_TYPES) or text.startswith((*_REFUSED_WORDS, *_FULL_WORDS)):
        return Remedy.GIVE_UP
    if isinstance(error, _TRANSIENT_TYPES) or text.startswith(_TRANSIENT_WORDS):
        return Remedy.REPEAT
    if isinstance(error, valkey_errors.ResponseError) and "Function not found" in text:
        return Remedy.LOAD_LIBRARY
    return Remedy.GIVE_UP


def away(place: str, error: BaseException, *, tried_s: float | None = None) -> Unavailable:
    """Return what callers get when repeating has not helped."""
    for_how_long = "" if tried_s is None else f" for {tried_s:.0f} s"
    return Unavailable(
        f"the store at {place} did not answer{for_how_long}",
        code="store_unavailable",
        reason=_told(error),
        resolution="the request may be repeated as it is; see the server's log if this stays so",
    )


def final(place: str, error: BaseException) -> BaseException:
    """Return what callers get for a failure that repeating cannot heal; a defect of ours comes back as it is."""
    error = innermost(error)
    text = str(error)
    if is_login_failure(error):
        return Unavailable(
            f"authentication failed at the store {place}",
            code="store_refused",
            reason=_told(error),
            resolution="set the password (and user) that the server expects in the store's URL",
        )
    if isinstance(error, _REFUSED_TYPES) or text.startswith(_REFUSED_WORDS):
        return Unavailable(
            f"the store at {place} does not allow what the town needs",
            code="store_refused",
            reason=_told(error),
            resolution="give the user FCALL, FUNCTION and all commands on keys that start with tt:",
        )
    if isinstance(error, valkey_errors.OutOfMemoryError) or text.startswith(_FULL_WORDS):
        return Unavailable(
            f"the store at {place} takes no more writes",
            code="store_full",
            reason=_told(error),
            resolution="free disk or memory on the store's machine (maxmemory), then repeat the request",
        )
    return error


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
