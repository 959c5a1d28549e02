"""The ledger: its two chains, its export, and that no byte of it can be changed unnoticed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.checkpoints import (
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    parse_verifier_key,
    sign_checkpoint,
)
from borough.governance.ledger import (
    GENESIS,
    MOST_DETAIL_CHARACTERS,
    Draft,
    Head,
    Kind,
    Outcome,
    Sealed,
    Via,
    fields_of,
    fit_detail,
    seal,
)
from borough.governance.merkle import leaf_hash
from borough.governance.verification import (
    Broken,
    Link,
    Proven,
    check_entries,
    check_part,
    checkpoint_lines,
    entry_line,
    header_line,
    join_parts,
    verify_export,
)

AGENT = "550e8400-e29b-41d4-a716-446655440000"
FIRST = Draft(
    id="1",
    at=datetime(2026, 2, 22, 12, 34, 56, 789_000, tzinfo=UTC),
    agent_id=AGENT,
    action="AgentSpawn",
    detail="manifest=report-agent@1.0.0",
    outcome=Outcome.SUCCESS,
)
SECOND = Draft(
    id="2",
    at=datetime(2026, 2, 22, 12, 34, 57, 1_000, tzinfo=UTC),
    agent_id=AGENT,
    action="ToolInvoke",
    detail='echo({"message":"hello"})',
    outcome=Outcome.SUCCESS,
)
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey(name="ledger.example", public_key=PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def sealed(drafts: list[Draft], head: Head = GENESIS) -> tuple[list[Sealed], Head]:
    entries = []
    for draft in drafts:
        entry, head = seal(draft, head)
        entries.append(entry)
    return entries, head


def drafts(count: int) -> list[Draft]:
    return [
        replace(
            SECOND, id=str(n), at=SECOND.at + timedelta(seconds=n), kind=Kind.INTENT, data={"n": n, "text": "é\x1f"}
        )
        for n in range(count)
    ]


def exported(entries: list[Sealed], start: Head, end: Head) -> bytes:
    note = sign_checkpoint(Checkpoint(origin=KEY.name, size=end.size, root=end.frontier.root()), KEY, PRIVATE.sign)
    lines = b"".join(entry_line(entry.leaf, entry.canonical) for entry in entries)
    return header_line(start) + lines + checkpoint_lines(note)


def verify(data: bytes) -> Proven | Broken:
    return verify_export(data.splitlines(keepends=True) if b"\r" not in data else split(data), KEY)


def split(data: bytes) -> list[bytes]:
    return [part + b"\n" for part in data.split(b"\n")[:-1]] + [rest for rest in [data.split(b"\n")[-1]] if rest]


ENTRIES, HEAD = sealed(drafts(7))
WHOLE = exported(ENTRIES, GENESIS, HEAD)


def test_the_legacy_chain_has_the_known_hashes() -> None:
    entries, head = sealed([FIRST, SECOND])
    assert entries[0].hash == "57409667b57246de2389ecb9eaa3a265b821e20be35a1754f7b1159f93a38395"
    assert entries[1].hash == "f13a991373eecb61b85b1eedfc81a47bff691bb7029651ce5df838c2e2013ca2"
    assert head.hash == entries[1].hash


def test_an_entry_shows_the_six_keys_of_the_reference_page_and_leaves_out_what_is_not_there() -> None:
    fields = fields_of(FIRST, GENESIS)
    assert {"id", "agent_id", "action", "timestamp", "prev_hash", "hash"} <= set(fields)
    assert fields["timestamp"] == "2026-02-22T12:34:56.789Z"
    assert fields["prev_hash"] == "0" * 64
    assert "on_behalf_of" not in fields


def test_an_entry_is_bound_to_the_leaf_of_the_one_before_by_its_canonical_bytes() -> None:
    entries, head = sealed([FIRST, replace(SECOND, via=Via.HTTP, token_name="ci", input_sha256="ab")])
    fields = fields_of(replace(SECOND, via=Via.HTTP, token_name="ci", input_sha256="ab"), sealed([FIRST])[1])
    assert entries[1].canonical == rfc8785.dumps(fields)  # type: ignore[arg-type] # its own alias for JSON
    assert fields["prev_leaf"] == leaf_hash(entries[0].canonical).hex()
    assert head.leaf == entries[1].leaf.hex()


def test_fields_that_the_legacy_hash_confuses_have_different_leaves() -> None:
    one, _ = seal(replace(SECOND, action="ToolInvoke", detail="denied"), GENESIS)
    other, _ = seal(replace(SECOND, action="ToolInvokedenied", detail=""), GENESIS)
    assert one.hash == other.hash
    assert one.leaf != other.leaf


def test_a_float_and_an_overlong_entry_are_refused() -> None:
    with pytest.raises(Invalid) as refused:
        seal(replace(SECOND, data={"cost": 0.1}), GENESIS)  # type: ignore[dict-item] # what types forbid too
    assert refused.value.code == "not_canonical"
    for long in (replace(SECOND, detail="a" * 20_000), replace(SECOND, data={"a": "a" * 300_000})):
        with pytest.raises(Invalid) as refused:
            seal(long, GENESIS)
        assert refused.value.code == "entry_too_long"


def test_an_overlong_detail_is_cut_and_says_so() -> None:
    assert fit_detail("short") == "short"
    cut = fit_detail("a" * 20_000)
    assert len(cut) == MOST_DETAIL_CHARACTERS
    assert cut.endswith("… (20000 characters)")


def test_an_export_proves_itself() -> None:
    found = verify(WHOLE)
    assert isinstance(found, Proven)
    assert (found.first_seq, found.head) == (0, HEAD)
    assert found.checkpoint == Checkpoint(origin="ledger.example", size=7, root=HEAD.frontier.root())


@pytest.mark.parametrize("cut", range(8))
def test_the_rest_of_a_ledger_proves_itself_after_old_entries_were_dropped(cut: int) -> None:
    before, head = sealed(drafts(7)[:cut])
    found = verify(exported(ENTRIES[cut:], head, HEAD))
    assert isinstance(found, Proven)
    assert found.first_seq == len(before)


def test_without_a_key_the_entries_agree_but_nobody_vouches() -> None:
    found = verify_export(WHOLE.splitlines(keepends=True), None)
    assert isinstance(found, Proven)
    assert found.checkpoint is None


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(max_examples=600)
def test_any_changed_byte_is_found_and_its_entry_named(place: int, change: int) -> None:
    spoiled = bytearray(WHOLE)
    spoiled[place] ^= change
    found = verify_export(split(bytes(spoiled)), KEY)
    assert isinstance(found, Broken)
    line = WHOLE[:place].count(b"\n") + 1
    if 2 <= line <= 8 and change != WHOLE[place] ^ 0x0A and WHOLE[place] != 0x0A:
        assert found.part == "entry"
        assert found.seq == line - 2
        assert found.line == line


def test_every_bit_of_the_header_and_the_checkpoint_counts() -> None:
    last_entry = WHOLE.index(b"\n\n")
    first_entry = WHOLE.index(b"\n")
    for place in (*range(first_entry + 1), *range(last_entry, len(WHOLE))):
        for bit in range(8):
            spoiled = bytearray(WHOLE)
            spoiled[place] ^= 1 << bit
            assert isinstance(verify_export(split(bytes(spoiled)), KEY), Broken), (place, bit)


@pytest.mark.parametrize("gone", range(7))
def test_a_missing_entry_is_named(gone: int) -> None:
    lines = WHOLE.splitlines(keepends=True)
    found = verify_export(lines[: gone + 1] + lines[gone + 2 :], KEY)
    assert isinstance(found, Broken)
    assert found.part == ("checkpoint" if gone == 6 else "entry")
    assert found.seq == (None if gone == 6 else gone)


@pytest.mark.parametrize("forged", range(7))
def test_an_entry_forged_with_its_leaf_is_found_by_the_one_that_follows(forged: int) -> None:
    other, _ = seal(replace(drafts(7)[forged], detail="nothing happened"), sealed(drafts(7)[:forged])[1])
    entries = [*ENTRIES[:forged], other, *ENTRIES[forged + 1 :]]
    found = verify(exported(entries, GENESIS, HEAD))
    assert isinstance(found, Broken)
    assert (found.part, found.seq) == (("checkpoint", None) if forged == 6 else ("entry", forged))


def test_a_ledger_rewritten_from_one_entry_on_is_not_the_signed_one() -> None:
    entries, end = sealed([*drafts(3), *(replace(draft, detail="-") for draft in drafts(7)[3:])])
    note = checkpoint_lines(
        sign_checkpoint(Checkpoint(origin=KEY.name, size=7, root=HEAD.frontier.root()), KEY, PRIVATE.sign)
    )
    rewritten = exported(entries, GENESIS, end)
    found = verify(rewritten[: rewritten.index(b"\n\n") + 1] + note)
    assert isinstance(found, Broken)
    assert (found.part, found.seq) == ("checkpoint", None)


def test_parts_are_checked_side_by_side() -> None:
    lines = WHOLE.splitlines(keepends=True)[1:8]
    middle = sealed(drafts(7)[:3])[1]
    first = [leaf for leaf, _ in check_entries(lines[:3], Link(seq=0, hash="0" * 64, leaf="0" * 64))]
    rest = [leaf for leaf, _ in check_entries(lines[3:], Link(seq=3, hash=middle.hash, leaf=middle.leaf))]
    assert first + rest == [entry.leaf for entry in ENTRIES]


@given(st.integers(0, 40), st.lists(st.integers(0, 23), max_size=4))
def test_parts_joined_are_the_whole(first: int, lengths: list[int]) -> None:
    total = first + sum(lengths)
    entries, end = sealed(drafts(total))
    begin = sealed(drafts(first))[1]
    parts, link, at = [], Link(seq=begin.size, hash=begin.hash, leaf=begin.leaf), first
    for length in lengths:
        lines = [entry_line(entry.leaf, entry.canonical) for entry in entries[at : at + length]]
        parts.append(check_part(lines, link, first_line=at - first + 2))
        link, at = parts[-1].link, at + length
    assert join_parts(begin, parts) == end


def test_parts_with_a_gap_are_not_joined() -> None:
    line = WHOLE.splitlines(keepends=True)[4]
    third = ENTRIES[2]
    part = check_part([line], Link(seq=3, hash=third.hash, leaf=third.leaf.hex()), first_line=5)
    with pytest.raises(ValueError, match="follow"):
        join_parts(GENESIS, [part])


def test_a_verifier_key_reads_as_it_is_written() -> None:
    assert parse_verifier_key(str(KEY)) == KEY
    for wrong in ("", "a+b+c", str(KEY)[:-4], str(KEY).replace("ledger", "wedger")):
        with pytest.raises(Invalid):
            parse_verifier_key(wrong)


def test_a_checkpoint_of_another_key_is_refused_and_a_further_signature_is_not() -> None:
    checkpoint = Checkpoint(origin="ledger.example", size=7, root=HEAD.frontier.root())
    note = sign_checkpoint(checkpoint, KEY, PRIVATE.sign)
    other_private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    other = VerifierKey(
        name="witness", public_key=other_private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    )
    with pytest.raises(Invalid) as refused:
        open_checkpoint(note, other)
    assert refused.value.code == "bad_signature"
    witnessed = note + sign_checkpoint(checkpoint, other, other_private.sign).split("\n\n")[1]
    assert open_checkpoint(witnessed, KEY) == checkpoint == open_checkpoint(witnessed, other)
