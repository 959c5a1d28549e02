"""Evidence proves itself: whatever byte of it is changed, it is found, and the part that it lies in is named."""

import io
import tarfile
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from borough.core.ids import derived_id
from borough.governance.actions import Action
from borough.governance.checkpoints import Checkpoint, VerifierKey, sign_checkpoint
from borough.governance.ledger import GENESIS, Draft, Outcome, Sealed, seal
from borough.governance.merkle import inclusion_proof
from borough.overview.containers import NotAContainer, pack, unpack
from borough.overview.evidence import (
    EntryProof,
    EvidenceProven,
    Tampered,
    contents_of,
    is_evidence,
    make_evidence,
    verify_evidence,
)
from borough.overview.occurrences import Subject

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CODER = Subject(kind="agent", id="a1", name="coder")
FILES = {"manifest.yaml": b"kind: AgentManifest\n", "agent.json": b'{"spent": 7}\n'}


class Ledger:
    """A ledger of some entries, signed with a key of its own."""

    def __init__(self, seed: bytes = b"1") -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed * 32)
        self.key = VerifierKey(name="town", public_key=self._private.public_key().public_bytes_raw())
        self.entries: list[Sealed] = []
        self.head = GENESIS

    def add(self, action: str, **data: str) -> None:
        draft = Draft(
            id=derived_id("entry", str(len(self.entries))),
            at=NOON,
            agent_id="a1",
            action=action,
            outcome=Outcome.SUCCESS,
            data=dict(data),
        )
        sealed, self.head = seal(draft, self.head)
        self.entries.append(sealed)

    def note(self) -> str:
        root = self.head.frontier.root()
        return sign_checkpoint(Checkpoint(origin="town", size=self.head.size, root=root), self.key, self._private.sign)

    def proven(self, numbers: list[int]) -> list[EntryProof]:
        nodes = {(node.level, node.place): node.hash for entry in self.entries for node in entry.nodes}

        def proof(seq: int) -> tuple[bytes, ...]:
            return inclusion_proof(seq, self.head.size, lambda level, place: nodes[level, place])

        chosen = [self.entries[number] for number in numbers]
        return [EntryProof(seq=one.seq, canonical=one.canonical, hashes=proof(one.seq)) for one in chosen]


def evidence(ledger: Ledger) -> bytes:
    for number in range(6):
        ledger.add("ToolInvoke", number=str(number))
    contents = contents_of(CODER, FILES, made_at="2026-01-01T12:00:00.000Z")
    ledger.add(Action.EVIDENCE_EXPORT.value, contents_sha256=sha256(contents).hexdigest())
    return make_evidence(FILES, contents, ledger.proven([1, 4, 6]), note=ledger.note(), key=ledger.key)


def test_evidence_is_verified_by_the_known_key_and_by_the_one_that_it_brings() -> None:
    ledger = Ledger()
    made = evidence(ledger)
    assert is_evidence(made[:4])
    for key in (ledger.key, None):
        found = verify_evidence(made, key)
        assert isinstance(found, EvidenceProven)
        assert (found.subject, found.entries, found.is_own_key) == (CODER, 3, key is None)


def test_any_tool_opens_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(evidence(Ledger())), mode="r:gz") as archive:
        assert archive.getnames()[0] == "contents.json"
        member = archive.extractfile("manifest.yaml")
        assert member is not None
        assert member.read() == FILES["manifest.yaml"]


def test_whatever_byte_is_changed_is_found() -> None:
    ledger = Ledger()
    made = evidence(ledger)
    for place in range(len(made)):
        changed = bytearray(made)
        changed[place] ^= 1 << place % 8
        found = verify_evidence(bytes(changed), ledger.key)
        assert isinstance(found, Tampered), place
        assert found.reason


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("manifest.yaml", b"kind: AgentManifest", b"kind: AgentManifesT"),
        ("agent.json", b'"spent": 7', b'"spent": 1'),
        ("contents.json", b'"name": "coder"', b'"name": "codes"'),
        ("ledger/entries.jsonl", b'"number":"4"', b'"number":"5"'),
        ("ledger/proofs.json", b'"seq": 4', b'"seq":  4'),
        ("ledger/checkpoint", b"town\n7\n", b"town\n8\n"),
        ("ledger/key", b"town+", b"torn+"),
    ],
)
def test_the_part_that_was_changed_is_named(part: str, old: bytes, new: bytes) -> None:
    ledger = Ledger()
    made = evidence(ledger)
    assert made.count(old) == 1
    for changed in (made.replace(old, new), _packed_again(made, part, old, new)):
        found = verify_evidence(changed, ledger.key)
        assert isinstance(found, Tampered)
        # What is longer than it was also moves what comes after it in the file.
        assert found.part == part or (len(old) != len(new) and found.part == "file")


def _packed_again(made: bytes, part: str, old: bytes, new: bytes) -> bytes:
    files, flaw = unpack(made)
    assert flaw is None
    return pack({**files, part: files[part].replace(old, new)})


def test_what_is_missing_or_was_added_is_named() -> None:
    ledger = Ledger()
    made = evidence(ledger)
    files, _ = unpack(made)
    without = {name: content for name, content in files.items() if name != "agent.json"}
    assert verify_evidence(pack(without), ledger.key) == Tampered(part="agent.json", reason="it is missing")
    found = verify_evidence(pack({**files, "more.txt": b"more"}), ledger.key)
    assert found == Tampered(part="more.txt", reason="it is not on the list")
    for cut in (b"", made[:5], made[:700], made[:-1], made + b"x"):
        assert isinstance(verify_evidence(cut, None), Tampered)


def test_another_ledger_s_evidence_does_not_pass_for_this_one_s() -> None:
    found = verify_evidence(evidence(Ledger(b"2")), Ledger().key)
    assert isinstance(found, Tampered)
    assert found.part == "ledger/key"


def test_a_container_is_written_in_one_way_whatever_is_in_it() -> None:
    files = {"empty": b"", "a/long": b"x" * 200_000, "odd": b"y" * 513}
    made = pack(files)
    assert unpack(made) == (files, None)
    for wrong in (b"", b"\x1f\x8b", made[:100], b"PK" + made[2:], made[:-1]):
        with pytest.raises(NotAContainer):
            unpack(wrong)
    with pytest.raises(ValueError, match="cannot be in a container"):
        pack({"x" * 200: b""})
