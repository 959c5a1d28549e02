"""Evidence: what was done, with the proof of it, in one file that is verified by the ledger's public key alone.

In the file are the entries of the ledger as they were hashed, the proof of each that it is under the signed root, the
checkpoint with the signature, and the things that the entries speak of. The digests of these are in one of the files,
and its own is in the last of the entries: so all of it is bound to the signature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.governance.actions import Action
from borough.governance.checkpoints import Checkpoint, VerifierKey, open_checkpoint, parse_verifier_key
from borough.governance.merkle import leaf_hash, verify_inclusion
from borough.overview.containers import ENVELOPE, NotAContainer, pack, unpack
from borough.overview.occurrences import Subject

FORMAT: Final = "borough-evidence/1"
CONTENTS: Final = "contents.json"
ENTRIES: Final = "ledger/entries.jsonl"
PROOFS: Final = "ledger/proofs.json"
CHECKPOINT: Final = "ledger/checkpoint"
KEY: Final = "ledger/key"
LEDGER: Final = (ENTRIES, PROOFS, CHECKPOINT, KEY)
"""What proves itself; everything else is listed with its digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What there is to show of a thing."""

    files: Mapping[str, bytes]
    """By their paths in the evidence."""
    agents: frozenset[AgentId]
    """Whose entries of the ledger belong to it."""
    entries: tuple[str, ...] = ()
    """The ids of others that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryProof:
    """An entry as it was hashed, and what leads from it to the root."""

    seq: int
    canonical: bytes
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceProven:
    """Every file is whole, and bound to the signature."""

    subject: Subject
    entries: int
    files: tuple[str, ...]
    checkpoint: Checkpoint
    key: VerifierKey
    is_own_key: bool
    """Whether the key was taken from the file itself: then only somebody who knows the key can tell whose it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampered:
    """Something was altered, is missing, or was added."""

    part: str
    """The file in it, or ``file`` for the whole."""
    reason: str


def is_evidence(begin: bytes) -> bool:
    """Tell whether a file that begins so is evidence."""
    return begin.startswith(ENVELOPE[:3])


def contents_of(subject: Subject, files: Mapping[str, bytes], *, made_at: str) -> bytes:
    """Return the list of files with their digests, which stands for all of them."""
    listed = [
        {"path": path, "sha256": sha256(content).hexdigest(), "bytes": len(content)} for path, content in files.items()
    ]
    about = {"kind": subject.kind, "id": subject.id, "name": subject.name}
    return _json({"format": FORMAT, "subject": about, "made_at": made_at, "files": listed})


def make_evidence(
    files: Mapping[str, bytes], contents: bytes, entries: Sequence[EntryProof], *, note: str, key: VerifierKey
) -> bytes:
    """Return the whole as bytes. The last entry is the one that holds the digest of ``contents``."""
    proofs = _proofs([(entry.seq, entry.hashes) for entry in entries])
    whole = {
        CONTENTS: contents,
        **files,
        ENTRIES: b"".join(entry.canonical + b"\n" for entry in entries),
        PROOFS: proofs,
        CHECKPOINT: note.encode(),
        KEY: f"{key}\n".encode(),
    }
    return pack(whole)


def verify_evidence(data: bytes, key: VerifierKey | None) -> EvidenceProven | Tampered:
    """Verify evidence by a key that is known, or (``None``) by the one that it brings along."""
    try:
        return _verify(data, key)
    except _Found as found:
        return found.tampered


class _Found(Exception):
    """Carries what is wrong out of the checks."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(reason)
        self.tampered = Tampered(part=part, reason=reason)


def _verify(data: bytes, known: VerifierKey | None) -> EvidenceProven:
    try:
        files, flaw = unpack(data)
    except NotAContainer as error:
        raise _Found("file", str(error)) from None
    for needed in (CONTENTS, *LEDGER):
        if needed not in files:
            raise _Found(needed, "it is missing")
    key = _key(files[KEY], known)
    checkpoint = _checkpoint(files[CHECKPOINT], key)
    entries = _entries(files[ENTRIES], files[PROOFS], checkpoint)
    contents = _contents(files[CONTENTS], entries[-1])
    _check_files(contents, files)
    if flaw is not None:
        raise _Found("file", flaw)
    about = contents["subject"]
    return EvidenceProven(
        subject=Subject(kind=about["kind"], id=about["id"], name=about["name"]),
        entries=len(entries),
        files=tuple(files),
        checkpoint=checkpoint,
        key=key,
        is_own_key=known is None,
    )


def _key(told: bytes, known: VerifierKey | None) -> VerifierKey:
    try:
        own = parse_verifier_key(told.decode())
    except (Invalid, UnicodeDecodeError):
        raise _Found(KEY, "it is no public key") from None
    if told != f"{own}\n".encode():
        raise _Found(KEY, "it is not written as a key is")
    if known is not None and str(known) != str(own):
        raise _Found(KEY, f"it is the key {own.key_id.hex()}, and {known.key_id.hex()} is the one that was given")
    return own


def _checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    try:
        checkpoint = open_checkpoint(note.decode(), key)
    except UnicodeDecodeError:
        raise _Found(CHECKPOINT, "it is not text") from None
    except Invalid as error:
        raise _Found(CHECKPOINT, f"{error.message}: {error.reason}") from None
    return checkpoint


def _entries(lines: bytes, told: bytes, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    try:
        found = [(each["seq"], tuple(map(bytes.fromhex, each["hashes"]))) for each in orjson.loads(told)]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise _Found(PROOFS, "it holds what is no proof") from None
    if _proofs(found) != told:
        raise _Found(PROOFS, "it is not written as it was made")
    canonical = lines.split(b"\n")
    if canonical.pop() or len(found) != len(canonical) or not canonical:
        raise _Found(PROOFS, "there is not one proof for each entry")
    return [_entry(one, *proof, checkpoint) for one, proof in zip(canonical, found, strict=True)]


def _proofs(found: Sequence[tuple[int, Sequence[bytes]]]) -> bytes:
    return _json([{"seq": seq, "hashes": [each.hex() for each in hashes]} for seq, hashes in found])


def _entry(canonical: bytes, seq: int, hashes: Sequence[bytes], checkpoint: Checkpoint) -> dict[str, Any]:
    size, root = checkpoint.size, checkpoint.root
    if not verify_inclusion(leaf=leaf_hash(canonical), index=seq, size=size, proof=hashes, root=root):
        raise _Found(ENTRIES, f"entry {seq} is not the one that was signed, or its proof is another's")
    fields: dict[str, Any] = orjson.loads(canonical)  # it was signed, so it is an entry
    return fields


def _contents(told: bytes, last: Mapping[str, Any]) -> dict[str, Any]:
    if last.get("action") != Action.EVIDENCE_EXPORT.value:
        raise _Found(ENTRIES, "the last entry is not the one that says what was handed out")
    if last["data"].get("contents_sha256") != sha256(told).hexdigest():
        raise _Found(CONTENTS, "it is not the list whose digest is in the ledger")
    contents: dict[str, Any] = orjson.loads(told)
    return contents


def _check_files(contents: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    listed = {each["path"]: each for each in contents["files"]}
    for path in files:
        if path not in listed and path not in (CONTENTS, *LEDGER):
            raise _Found(path, "it is not on the list")
    for path, each in listed.items():
        if path not in files:
            raise _Found(path, "it is missing")
        if sha256(files[path]).hexdigest() != each["sha256"]:
            raise _Found(path, "its bytes are not those whose digest is on the list")


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
