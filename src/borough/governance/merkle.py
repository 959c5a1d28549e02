"""The Merkle tree of RFC 6962: appending, roots, inclusion and consistency proofs, and their verification.

A node is named by its level (0 for leaves) and its place on that level; a complete node, once there, never changes.
Proofs are made from complete nodes only, so a store keeps just those (``append`` says which became complete).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeHash = Callable[[int, int], bytes]
"""Returns the hash of the complete node at a level and a place."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from those of its two children."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteNode:
    """A node below which every leaf is there."""

    level: int
    place: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All that appending needs of a tree: the roots of its largest complete subtrees, from left to right."""

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.roots) != self.size.bit_count():
            raise ValueError("a frontier has one root for each bit of its size")

    def append(self, leaf: bytes) -> tuple["Frontier", tuple[CompleteNode, ...]]:
        """Return the frontier with one more leaf, and the nodes that this completed, the leaf first."""
        roots = list(self.roots)
        place, level, hash_ = self.size, 0, leaf
        completed = [CompleteNode(level=level, place=place, hash=hash_)]
        while place & 1:
            hash_ = node_hash(roots.pop(), hash_)
            place >>= 1
            level += 1
            completed.append(CompleteNode(level=level, place=place, hash=hash_))
        roots.append(hash_)
        return Frontier(size=self.size + 1, roots=tuple(roots)), tuple(completed)

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self.roots:
            return EMPTY_ROOT
        hash_ = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            hash_ = node_hash(left, hash_)
        return hash_


def root_of(size: int, node: NodeHash) -> bytes:
    """Return the root over the first ``size`` leaves."""
    return _range_root(0, size, node) if size else EMPTY_ROOT


def root_with(size: int, begin: int, leaves: Sequence[bytes], node: NodeHash) -> bytes:
    """Return the root over the first ``size`` leaves, where those from ``begin`` on are ``leaves`` themselves.

    Only what lies beside them is taken from complete nodes: the root is the signed one only if the leaves are too.
    """
    if not 0 <= begin <= begin + len(leaves) <= size:
        raise ValueError("the leaves are not in a tree of that size")
    end = begin + len(leaves)

    def part(first: int, last: int) -> bytes:
        if last <= begin or end <= first:
            return _range_root(first, last, node)
        if last - first == 1:
            return leaves[first - begin]
        middle = first + _split(last - first)
        return node_hash(part(first, middle), part(middle, last))

    return part(0, size) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeHash) -> tuple[bytes, ...]:
    """Return the proof that leaf ``index`` is in the tree of the first ``size`` leaves (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("the leaf is not in a tree of that size")
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(begin, middle, node))
            begin = middle
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: NodeHash) -> tuple[bytes, ...]:
    """Return the proof that the tree of ``new`` leaves begins with that of ``old`` (RFC 6962, 2.1.2)."""
    if not 0 < old <= new:
        raise ValueError("the old tree is not empty and no larger than the new")
    proof: list[bytes] = []
    begin, end = 0, new
    whole = True  # whether the old tree's root is that of the range, and so known to the verifier
    while old - begin != end - begin:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(_range_root(middle, end, node))
            end = middle
        else:
            proof.append(_range_root(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        proof.append(_range_root(begin, end, node))
    return tuple(reversed(proof))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether ``proof`` shows that ``leaf`` is at ``index`` in the tree with ``root`` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or any(len(hash_) != HASH_BYTES for hash_ in (leaf, *proof)):
        return False
    place, last, hash_ = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            hash_ = node_hash(sibling, hash_)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            hash_ = node_hash(hash_, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and hash_ == root


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether ``proof`` shows that the new tree begins with the old one (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new or any(len(hash_) != HASH_BYTES for hash_ in proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    then = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            then, now = node_hash(sibling, then), node_hash(sibling, now)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and then == old_root and now == new_root


def _range_root(begin: int, end: int, node: NodeHash) -> bytes:
    """Return the root over leaves ``begin`` to ``end``; ``begin`` is a place where a complete subtree may begin."""
    size = end - begin
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, begin >> level)
    middle = begin + _split(size)
    return node_hash(_range_root(begin, middle, node), _range_root(middle, end, node))


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)
