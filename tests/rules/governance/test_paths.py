"""Canonical paths: one spelling for one file."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.paths import canonical_path, is_canonical

SEGMENTS = st.sampled_from(["a", "b", "..", ".", "", "...", "a..", "é"])
PATHS = st.lists(SEGMENTS, max_size=8).map(lambda segments: "/" + "/".join(segments))


@given(PATHS)
def test_a_canonical_path_stays_as_it_is(path: str) -> None:
    once = canonical_path(path)
    assert canonical_path(once) == once
    assert is_canonical(once)
    assert once.startswith("/")
    assert not {"", ".", ".."} & set(once.split("/")[1:]) or once == "/"


@given(PATHS)
def test_it_names_what_posix_normalisation_names(path: str) -> None:
    assert canonical_path(path) == posixpath.normpath("/" + path.lstrip("/"))


@pytest.mark.parametrize("path", ["", "a", "./a", "../etc", "~/a", "/a\0b", "/\ud800"])
def test_what_is_no_absolute_path_is_refused(path: str) -> None:
    with pytest.raises(Invalid) as refused:
        canonical_path(path)
    assert refused.value.code == "invalid_path"
    assert not is_canonical(path)


@pytest.mark.parametrize("path", ["/" + "a" * 256, "/a" * 2100])
def test_an_overlong_path_is_refused(path: str) -> None:
    with pytest.raises(Invalid) as refused:
        canonical_path(path)
    assert refused.value.code == "path_too_long"


def test_dots_cannot_climb_above_the_root() -> None:
    assert canonical_path("/workspace/../../../etc/passwd") == "/etc/passwd"
