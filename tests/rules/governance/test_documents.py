"""YAML from strangers."""

import pytest

from borough.core.errors import Invalid
from borough.governance.documents import load_document


def test_scalars_mean_what_yaml_1_2_says() -> None:
    text = "{a: no, b: 12:30, c: 1.5, d: 0x10, e: ~, f: '1', g: true, h: 2026-01-01, i: , j: 010, k: 1e3}"
    assert load_document(text) == {
        "a": "no", "b": "12:30", "c": 1.5, "d": 16, "e": None, "f": "1", "g": True, "h": "2026-01-01", "i": None,
        "j": 10, "k": 1000.0,
    }  # fmt: skip


def test_anchors_are_written_out() -> None:
    assert load_document("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}


def test_a_merge_key_is_an_ordinary_key() -> None:
    assert load_document("<<: 1") == {"<<": 1}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' is there twice"),
        (BOMB, "aliases written out"),
        ("a: &x [*x]", "holds itself"),
        ("[" * 1000, "nested deeper"),
        ("{" * 1000, "nested deeper"),
        ("!!python/object/apply:os.system [x]", "the tag"),
        ("!!timestamp 2026-01-01", "the tag"),
        ("? [a]\n: 1", "a key is not text"),
        ("1: a", "a key is not text"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a: [", "line 1"),
        ("a: \x00", "special characters"),
        ("a: *nothing", "undefined alias"),
    ],
)
def test_what_a_manifest_has_no_use_for_is_refused(text: str, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        load_document(text)
    assert refused.value.code == "invalid_yaml"
    assert said in (refused.value.reason or "")


def test_an_overlong_document_is_refused_unread() -> None:
    with pytest.raises(Invalid) as refused:
        load_document("a: " + "b" * 300_000)
    assert refused.value.code == "document_too_long"


def test_an_empty_document_is_nothing() -> None:
    assert load_document("# nothing\n") is None
