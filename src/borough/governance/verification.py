r"""The ledger as a file that proves itself, and the proof, offline.

The file is a header line with what the first entry is bound to, then for each entry its leaf hash, a space and its
canonical bytes, then an empty line and the signed checkpoint over all of it::

    borough-ledger/1 SIZE HASH LEAF ROOT,ROOT…
    LEAF {"action":…}
    …

    origin
    …

A verifier hashes those bytes; it never writes an entry anew. Changing any byte is found; the first bad entry is named.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import orjson

from borough.core.errors import Invalid
from borough.governance.checkpoints import Checkpoint, VerifierKey, open_checkpoint
from borough.governance.ledger import Head, legacy_hash
from borough.governance.merkle import EMPTY_ROOT, CompleteNode, Frontier

FORMAT = "borough-ledger/1"
LONGEST_LINE_BYTES = 1_048_576
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_LEAF_CHARACTERS = 64
_FIRST_ENTRY_LINE = 2
_LEGACY_FIELDS = ("timestamp", "agent_id", "action", "detail", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """Every entry is whole, bound to the one before, and under the signed root (when there was a key to ask)."""

    first_seq: int
    head: Head
    checkpoint: Checkpoint | None
    """``None`` when no key was given: the entries agree with each other, but nobody vouches for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Something was altered, is missing, or was added."""

    part: str
    """``header``, ``entry`` or ``checkpoint``."""
    seq: int | None
    """The first bad entry, where it can be named."""
    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What an entry is bound to: its own number, and the hashes of the one before."""

    seq: int
    hash: str
    leaf: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Entries that are whole and bound to each other: what follows them is bound to ``link``."""

    link: Link
    nodes: tuple[CompleteNode, ...]
    """The tree over them, as the largest complete nodes from left to right."""


class NotWhole(Exception):
    """Carries what is broken out of ``check_entries``."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.reason)
        self.broken = broken


def header_line(head: Head) -> bytes:
    """Return the first line of an export whose first entry follows ``head``."""
    roots = ",".join(root.hex() for root in head.frontier.roots) or "-"
    return f"{FORMAT} {head.size} {head.hash} {head.leaf} {roots}\n".encode()


def entry_line(leaf: bytes, canonical: bytes) -> bytes:
    """Return the line of one entry."""
    return b"%b %b\n" % (leaf.hex().encode(), canonical)


def checkpoint_lines(note: str) -> bytes:
    """Return what follows the last entry."""
    return b"\n" + note.encode()


def verify_export(lines: Iterable[bytes], key: VerifierKey | None) -> Proven | Broken:
    """Verify an export, given as its lines, each with its line end."""
    numbered = enumerate(lines, start=1)
    try:
        return _verify(numbered, key)
    except NotWhole as found:
        return found.broken


def check_entries(
    lines: Iterable[bytes], after: Link, *, first_line: int = _FIRST_ENTRY_LINE
) -> Iterator[tuple[bytes, Link]]:
    """Yield each entry's leaf hash and what the next is bound to.

    The first that is not whole and bound raises ``NotWhole``.

    Parts of a ledger may be checked side by side, each from the link that its first entry is to have; the Merkle
    tree over their leaves then joins them.
    """
    link = after
    for number, line in enumerate(lines, start=first_line):
        leaf, link = _check_entry(line, number, link)
        yield leaf, link


def check_part(lines: Iterable[bytes], after: Link, *, first_line: int) -> Part:
    """Return what the entries of a part amount to; the first that is not whole and bound raises ``NotWhole``."""
    nodes: list[tuple[int, int, bytes]] = []
    link = after
    for leaf, link in check_entries(lines, after, first_line=first_line):
        _push(nodes, 0, link.seq - 1, leaf)
    return Part(link=link, nodes=tuple(CompleteNode(level=level, place=at, hash=hash_) for level, at, hash_ in nodes))


def join_parts(start: Head, parts: Iterable[Part]) -> Head:
    """Return the head after ``parts``, which follow ``start`` and each other without a gap.

    Raises:
        ValueError: there is a gap.
    """
    nodes: list[tuple[int, int, bytes]] = []
    covered = 0
    for root, level in zip(start.frontier.roots, _levels(start.size), strict=True):
        nodes.append((level, covered >> level, root))
        covered += 1 << level
    link = Link(seq=start.size, hash=start.hash, leaf=start.leaf)
    for part in parts:
        for node in part.nodes:
            if node.place << node.level != covered:
                raise ValueError("the parts do not follow each other")
            _push(nodes, node.level, node.place, node.hash)
            covered += 1 << node.level
        link = part.link
    frontier = Frontier(size=covered, roots=tuple(hash_ for _, _, hash_ in nodes))
    return Head(size=link.seq, hash=link.hash, leaf=link.leaf, frontier=frontier)


def conclude(start: Head, end: Head, note: bytes, key: VerifierKey | None) -> Proven | Broken:
    """Return what is proven of whole entries from ``start`` to ``end``, with the checkpoint that follows them."""
    line = end.size - start.size + _FIRST_ENTRY_LINE
    try:
        checkpoint = _check_signature(note, end, key, line) if key else None
    except NotWhole as found:
        return found.broken
    return Proven(first_seq=start.size, head=end, checkpoint=checkpoint)


def _push(nodes: list[tuple[int, int, bytes]], level: int, place: int, hash_: bytes) -> None:
    """Add a node to the right of ``nodes``, joined with those that it completes."""
    while place & 1 and nodes and nodes[-1][:2] == (level, place - 1):
        hash_ = sha256(b"\x01" + nodes.pop()[2] + hash_).digest()
        level, place = level + 1, place >> 1
    nodes.append((level, place, hash_))


def _levels(size: int) -> list[int]:
    return [level for level in reversed(range(size.bit_length())) if size >> level & 1]


def _verify(numbered: Iterator[tuple[int, bytes]], key: VerifierKey | None) -> Proven | Broken:
    first = next(numbered, (1, b""))[1]
    start = read_header(first)
    link = Link(seq=start.size, hash=start.hash, leaf=start.leaf)
    roots = list(start.frontier.roots)
    note: list[bytes] = []
    for number, line in numbered:
        if line == b"\n":
            note = [rest for _, rest in numbered]
            break
        leaf, link = _check_entry(line, number, link)
        place = link.seq - 1
        while place & 1:
            leaf = sha256(b"\x01" + roots.pop() + leaf).digest()
            place >>= 1
        roots.append(leaf)
    head = Head(size=link.seq, hash=link.hash, leaf=link.leaf, frontier=Frontier(size=link.seq, roots=tuple(roots)))
    return conclude(start, head, b"".join(note), key)


def _check_entry(line: bytes, number: int, link: Link) -> tuple[bytes, Link]:
    canonical = line[_LEAF_CHARACTERS + 1 : -1]
    leaf = sha256(b"\x00" + canonical).digest()
    leaf_hex = leaf.hex()
    if line[: _LEAF_CHARACTERS + 1] != leaf_hex.encode() + b" " or line[-1:] != b"\n":
        raise _entry(link.seq, number, "its bytes are not those that its leaf hash was made of")
    try:
        fields = orjson.loads(canonical)
        seq, prev_leaf, prev_hash, hash_ = fields["seq"], fields["prev_leaf"], fields["prev_hash"], fields["hash"]
        expected = legacy_hash(prev_hash=prev_hash, **{name: fields[name] for name in _LEGACY_FIELDS})
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise _entry(link.seq, number, "it is not an entry of a ledger") from None
    if type(seq) is not int or seq != link.seq:
        raise _entry(link.seq, number, f"entry {link.seq} is missing here: this one is number {seq}")
    if prev_leaf != link.leaf:
        if number == _FIRST_ENTRY_LINE:
            raise _header(f"entry {seq} is bound to something else before it than the header says")
        # The entry itself is whole, and it remembers another one before it.
        raise _entry(link.seq - 1, number - 1, f"entry {seq} is bound to another entry in its place")
    if prev_hash != link.hash or hash_ != expected:
        raise _entry(seq, number, "its hash chain does not hold")
    return leaf, Link(seq=seq + 1, hash=hash_, leaf=leaf_hex)


def _check_signature(note: bytes, head: Head, key: VerifierKey, line: int) -> Checkpoint:
    root = head.frontier.root() if head.size else EMPTY_ROOT
    try:
        checkpoint = open_checkpoint(note.decode(), key)
    except (Invalid, UnicodeDecodeError) as error:
        said = f"{error.message}: {error.reason}" if isinstance(error, Invalid) else "the checkpoint is not text"
        raise NotWhole(Broken(part="checkpoint", seq=None, line=line, reason=said)) from None
    if checkpoint.size != head.size:
        reason = f"{checkpoint.size} entries were signed, and they end after {head.size} here"
        raise NotWhole(Broken(part="checkpoint", seq=None, line=line, reason=reason))
    if checkpoint.root != root:
        reason = "the entries agree with each other, but they are not those that were signed"
        raise NotWhole(Broken(part="checkpoint", seq=None, line=line, reason=reason))
    return checkpoint


def read_header(line: bytes) -> Head:
    """Return what the first entry of an export is bound to; raises ``NotWhole`` where it cannot be told."""
    try:
        name, size, hash_, leaf, roots = line.decode("ascii").removesuffix("\n").split(" ")
        frontier = Frontier(size=int(size), roots=() if roots == "-" else tuple(map(bytes.fromhex, roots.split(","))))
    except (UnicodeDecodeError, ValueError):
        raise _header("it is not the header of a ledger") from None
    told = Head(size=frontier.size, hash=hash_, leaf=leaf, frontier=frontier)
    if name != FORMAT or not _NUMBER.fullmatch(size) or not (_HEX_HASH.fullmatch(hash_) and _HEX_HASH.fullmatch(leaf)):
        raise _header(f"it is not the header of a ledger in the format {FORMAT}")
    # One spelling only, so that no byte of it can change unnoticed.
    if header_line(told) != line:
        raise _header("its header is not written as a ledger writes it")
    if told.size == 0 and told != Head():
        raise _header("a ledger that begins at entry 0 begins with nothing before it")
    return told


def _header(reason: str) -> NotWhole:
    return NotWhole(Broken(part="header", seq=None, line=1, reason=reason))


def _entry(seq: int, line: int, reason: str) -> NotWhole:
    return NotWhole(Broken(part="entry", seq=max(seq, 0), line=line, reason=reason))
