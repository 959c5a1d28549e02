"""Canonical bytes of JSON values, as RFC 8785 orders them, for values of a narrower kind.

RFC 8785 is hard where numbers are floats or large and where keys are not ASCII. Such values are refused here; for
what remains, sorting keys by their bytes and writing integers plainly *is* RFC 8785.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import orjson

from borough.core.errors import Invalid

MOST_INTEGER = 2**53 - 1
"""Beyond this a JSON number is not the same in every reader."""
DEEPEST = 16

Json = str | int | bool | None | Mapping[str, "Json"] | Sequence["Json"]


def canonical_bytes(value: Json) -> bytes:
    """Return the one sequence of bytes that stands for ``value``.

    Raises:
        Invalid: something in it is a float,
            an integer beyond ``MOST_INTEGER``, a key that is not ASCII, text that is not
            Unicode, of another type, or too deep (``not_canonical``).
    """
    _check(value, DEEPEST)
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, UnicodeEncodeError) as error:
        raise _refused(f"it cannot be written: {error}") from None


def plain_text(value: object) -> str:
    """Return any JSON value, floats included, as text with its keys in order.

    Raises:
        Invalid: it cannot be written as JSON (``not_canonical``).
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError) as error:
        raise _refused(f"it cannot be written: {error}") from None


def fingerprint(value: object) -> str:
    """Return the SHA-256 (hex) that stands for any JSON value, floats included.

    It tells calls apart; it is no proof, since other writers may spell a float otherwise.

    Raises:
        Invalid: it cannot be written as JSON (``not_canonical``).
    """
    try:
        return sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except (TypeError, ValueError) as error:
        raise _refused(f"it cannot be written: {error}") from None


def _check(value: object, depth: int) -> None:
    kind = type(value)
    # The exact types: a subclass could be written as something else.
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -MOST_INTEGER <= value <= MOST_INTEGER:  # type: ignore[operator] # its type was just looked at
            raise _refused("an integer is beyond 2^53-1")
    elif depth == 0:
        raise _refused(f"it is nested deeper than {DEEPEST} levels")
    elif kind is dict:
        for key, inner in value.items():  # type: ignore[attr-defined] # its type was just looked at
            if type(key) is not str or not key.isascii():
                raise _refused("a key is not ASCII text")
            _check(inner, depth - 1)
    elif kind is list or kind is tuple:
        for inner in value:  # type: ignore[attr-defined] # its type was just looked at
            _check(inner, depth - 1)
    else:
        raise _refused(f"it holds a {kind.__name__}")


def _refused(reason: str) -> Invalid:
    return Invalid(
        "the value has no canonical form",
        code="not_canonical",
        reason=reason,
        resolution="write amounts as whole numbers of a small unit, larger numbers and other things as text",
    )
