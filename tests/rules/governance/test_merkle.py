"""The Merkle tree: roots as RFC 6962 defines them, every proof verifies, no other does."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borough.governance.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeHash,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    root_with,
    verify_consistency,
    verify_inclusion,
)

MOST = 200
LEAVES = [leaf_hash(b"%d" % number) for number in range(MOST)]


def by_definition(leaves: list[bytes]) -> bytes:
    """The Merkle Tree Hash of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def grown(size: int) -> tuple[Frontier, NodeHash]:
    frontier = Frontier()
    nodes: dict[tuple[int, int], bytes] = {}
    for leaf in LEAVES[:size]:
        frontier, completed = frontier.append(leaf)
        nodes.update({(node.level, node.place): node.hash for node in completed})
    return frontier, lambda level, place: nodes[level, place]


NODE = grown(MOST)[1]
ROOTS = [by_definition(LEAVES[:size]) for size in range(MOST + 1)]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 9, 64, 199, 200])
def test_the_frontier_has_the_root_of_the_definition(size: int) -> None:
    assert grown(size)[0].root() == ROOTS[size]


def test_the_root_of_every_size_comes_from_complete_nodes_alone() -> None:
    assert root_of(0, NODE) == EMPTY_ROOT
    assert [root_of(size, NODE) for size in range(MOST + 1)] == ROOTS


def test_every_leaf_of_every_size_to_200_is_proven() -> None:
    for size in range(1, MOST + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, NODE)
            assert verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=ROOTS[size])


def test_every_tree_to_64_is_proven_to_begin_every_later_one() -> None:
    for new in range(1, 65):
        for old in range(1, new + 1):
            proof = consistency_proof(old, new, NODE)
            assert verify_consistency(old=old, new=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof)


@given(st.data())
@settings(max_examples=200)
def test_an_inclusion_proof_proves_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MOST))
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    proof = list(inclusion_proof(index, size, NODE))
    if other != index:
        assert not verify_inclusion(leaf=LEAVES[other], index=index, size=size, proof=proof, root=ROOTS[size])
        assert not verify_inclusion(leaf=LEAVES[index], index=other, size=size, proof=proof, root=ROOTS[size])
    place = data.draw(st.integers(0, len(proof) - 1))
    spoiled = [*proof[:place], bytes(32), *proof[place + 1 :]]
    for wrong in (spoiled, proof[:-1], [*proof, bytes(32)]):
        assert not verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=wrong, root=ROOTS[size])


@given(st.data())
@settings(max_examples=200)
def test_a_consistency_proof_proves_nothing_else(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 64))
    old = data.draw(st.integers(1, new - 1))
    proof = list(consistency_proof(old, new, NODE))
    place = data.draw(st.integers(0, len(proof) - 1))
    spoiled = [*proof[:place], bytes(32), *proof[place + 1 :]]
    for wrong in (spoiled, proof[:-1], [*proof, bytes(32)]):
        assert not verify_consistency(old=old, new=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=wrong)
    assert not verify_consistency(old=old, new=new, old_root=bytes(32), new_root=ROOTS[new], proof=proof)
    assert not verify_consistency(old=old, new=new, old_root=ROOTS[old], new_root=bytes(32), proof=proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1)])
def test_no_proof_is_made_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError):
        inclusion_proof(index, size, NODE)
    with pytest.raises(ValueError):
        consistency_proof(0, size, NODE)


def test_a_frontier_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError):
        Frontier(size=3, roots=(bytes(32),))


def test_two_known_leaves_have_their_known_root() -> None:
    hashes = [
        bytes.fromhex("57409667b57246de2389ecb9eaa3a265b821e20be35a1754f7b1159f93a38395"),
        bytes.fromhex("f13a991373eecb61b85b1eedfc81a47bff691bb7029651ce5df838c2e2013ca2"),
    ]
    root = node_hash(*map(leaf_hash, hashes))
    assert root.hex() == "ddb6b2f2f0418815da7a258450072a4e5919d9e31a26ce157291474999e4bfa7"


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))), st.data())
def test_a_root_made_with_some_leaves_is_the_root_of_these_only(sizes: tuple[int, int], data: st.DataObject) -> None:
    size, begin = sizes
    frontier, node = grown(size)
    some = LEAVES[begin : data.draw(st.integers(begin, size))]
    assert root_with(size, begin, some, node) == frontier.root()
    if some:
        wrong = list(some)
        wrong[data.draw(st.integers(0, len(some) - 1))] = leaf_hash(b"another")
        assert root_with(size, begin, wrong, node) != frontier.root()
    with pytest.raises(ValueError, match="not in a tree of that size"):
        root_with(size, begin, LEAVES[: size - begin + 1], node)
