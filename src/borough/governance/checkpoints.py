"""Checkpoints: a signed statement of the ledger's size and root, as the note format of C2SP says.

The text is ``origin``, size and base64 root, one a line; after an empty line comes one signature a line:
``— name base64(key id ‖ signature)``. (c2sp.org/tlog-checkpoint, c2sp.org/signed-note.)
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from borough.core.errors import Invalid
from borough.governance.merkle import HASH_BYTES

_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_KEY_BYTES = 32
_NAME = re.compile(r"[^\s+]{1,128}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_MOST_SIGNATURES = 16
_MOST_NOTE_CHARACTERS = 65_536

Sign = Callable[[bytes], bytes]
"""Returns the Ed25519 signature over some bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The ledger ``origin`` had ``size`` entries, with this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """Who may sign, and how to tell that they did."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public_key) != _KEY_BYTES:
            raise ValueError("a verifier key has a name without spaces or plus signs, and 32 bytes")

    @property
    def key_id(self) -> bytes:
        """Return the four bytes that point to this key in a signature."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """Return the key as it is handed to verifiers."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"


def parse_verifier_key(text: str) -> VerifierKey:
    """Return the key that ``text`` says: ``name+key id+base64``.

    Raises:
        Invalid: it says none (``invalid_verifier_key``).
    """
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        raw = base64.b64decode(encoded, validate=True)
        key = VerifierKey(name=name, public_key=raw[1:])
    except (binascii.Error, ValueError):
        raise _bad_key("it has to read name+key id+base64 of an Ed25519 key") from None
    if raw[:1] != _ED25519 or key.key_id.hex() != key_id:
        raise _bad_key("its key id does not belong to its key")
    return key


def sign_checkpoint(checkpoint: Checkpoint, key: VerifierKey, sign: Sign) -> str:
    """Return ``checkpoint`` as a signed note."""
    if not _NAME.fullmatch(checkpoint.origin) or len(checkpoint.root) != HASH_BYTES or checkpoint.size < 0:
        raise ValueError("a checkpoint has an origin without spaces, a size, and a root of 32 bytes")
    text = checkpoint.text()
    signature = base64.b64encode(key.key_id + sign(text.encode())).decode()
    return f"{text}\n— {key.name} {signature}\n"


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint in ``note``, if ``key`` signed it.

    Signatures by others are passed over; every byte of the text counts.

    Raises:
        Invalid: the note is malformed (``invalid_checkpoint``), or not signed by ``key`` (``bad_signature``).
    """
    text, blank, signatures = note.partition("\n\n")
    if not blank or len(note) > _MOST_NOTE_CHARACTERS or not signatures.endswith("\n"):
        raise _bad_note("it is no signed note")
    checkpoint = _parse_text(text + "\n")
    lines = signatures[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise _bad_note("it has too many signatures")
    ours = [
        raw[_KEY_ID_BYTES:] for name, raw in map(_parse_signature, lines) if (name, raw[:4]) == (key.name, key.key_id)
    ]
    if not ours or not all(_verifies(key.public_key, signature, text + "\n") for signature in ours):
        raise Invalid(
            "the checkpoint is not signed by this key",
            code="bad_signature",
            reason=f"no valid signature by {key.name}",
            resolution="check that the public key belongs to this ledger; if it does, the checkpoint was altered",
        )
    return checkpoint


def _parse_text(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not _NAME.fullmatch(lines[0]) or not _SIZE.fullmatch(lines[1]):  # noqa: PLR2004 - three lines, each ended
        raise _bad_note("its text is not an origin, a size and a root")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        raise _bad_note("its root is not base64") from None
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != lines[2]:
        raise _bad_note("its root is not 32 bytes in base64")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root)


def _parse_signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _bad_note("a signature is not base64") from None
    if (
        dash != "—"
        or not _NAME.fullmatch(name)
        or base64.b64encode(raw).decode() != encoded
        or len(raw) <= _KEY_ID_BYTES
    ):
        raise _bad_note("a signature line is malformed")
    return name, raw


def _verifies(public_key: bytes, signature: bytes, text: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text.encode())
    except InvalidSignature:
        return False
    return True


def _bad_note(reason: str) -> Invalid:
    return Invalid(
        "the checkpoint cannot be read",
        code="invalid_checkpoint",
        reason=reason,
        resolution="take it again from the ledger, byte for byte",
    )


def _bad_key(reason: str) -> Invalid:
    return Invalid(
        "the verifier key cannot be read",
        code="invalid_verifier_key",
        reason=reason,
        resolution="copy it whole from where the ledger's owner published it",
    )
