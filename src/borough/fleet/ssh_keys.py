"""SSH public keys: checked before they are put anywhere, so that nothing else rides along."""

import base64
import binascii
import re
from collections.abc import Iterable

from borough.core.errors import Invalid

MOST_KEY_CHARACTERS = 16_384
_TYPES = re.compile(r"(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+)")
_WORD = re.compile(r"[A-Za-z0-9+/=.]+")


def check_key(key: str) -> str:
    """Return one public key, without space around it.

    A body that is no base64 is accepted too: examples in documentation have such ones, and a guest ignores them.

    Raises:
        Invalid: it is not one line of type and body (``invalid_ssh_key``). A private key is never repeated in it.
    """
    text = key.strip()
    if "PRIVATE KEY" in text:
        raise _refused("this is a private key", "give the public one, from the file that ends in .pub")
    parts = text.split(None, 2)
    if len(text) > MOST_KEY_CHARACTERS or not text.isprintable() or len(parts) < 2:  # noqa: PLR2004 - type and body
        raise _refused("it is not one line of type and body", "give the line of a .pub file")
    if not _TYPES.fullmatch(parts[0]) or not _WORD.fullmatch(parts[1]):
        raise _refused(f"{parts[0][:40]!r} is not a type of key", "give the line of a .pub file")
    return text


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys, each once, in order; raises ``Invalid`` (``invalid_ssh_key``)."""
    return tuple(dict.fromkeys(check_key(key) for key in keys))


def is_usable(key: str) -> bool:
    """Tell whether an SSH server can read the key: its body is base64 and names its own type."""
    kind, body = key.split(None, 2)[:2]
    try:
        raw = base64.b64decode(body, validate=True)
    except binascii.Error:
        return False
    length = int.from_bytes(raw[:4], "big")
    return raw[4 : 4 + length] == kind.encode()


def _refused(reason: str, resolution: str) -> Invalid:
    return Invalid("this is not an SSH public key", code="invalid_ssh_key", reason=reason, resolution=resolution)
