"""Globs: what they match, and that covering means matching everything that the other matches."""

import itertools
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borough.governance.globs import TOPIC_SEPARATORS, Glob

PATTERNS = st.lists(st.sampled_from(["a", "b", "/", ".", "*", "**", "/**", "**/", "/*"]), max_size=7).map("".join)
TEXTS = st.text(alphabet="ab/.", max_size=9)


def by_regex(pattern: str, separators: str = "/") -> re.Pattern[str]:
    """The same meaning in other words: slow on hostile patterns, plain to read."""
    inside = f"[^{re.escape(separators)}]*"
    edge = f"[{re.escape(separators)}]"
    told = ""
    for part in re.findall(r"\*+|[^*]", pattern):
        told += inside if part == "*" else "\0" if part.startswith("**") else re.escape(part)
    told = re.sub(f"(^|(?<=[{re.escape(separators)}])|(?<={edge}))\0(?={edge}|\\\\{edge})", "\1", told)
    for separator in separators:
        literal = re.escape(separator)
        told = told.replace(f"\1{literal}", f"(?:.*{literal})?")
        if told.endswith(f"{literal}\0") and len(told) > len(literal) + 1:
            told = told[: -len(literal) - 1] + f"(?:{literal}.*)?"
    return re.compile(told.replace("\0", ".*"), re.DOTALL)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/b/c", False),
        ("/a/*", "/a", False),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a", True),
        ("/a/**", "/ab", False),
        ("/a/**/z", "/a/z", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/bz", False),
        ("/**", "/", True),
        ("**", "", True),
        ("fs.*", "fs.read", True),
        ("*", "lm.complete", True),
        ("mcp.*", "mcp.github.list_prs", True),
        ("*.example.com:443", "a.b.example.com:443", True),
        ("*.example.com:443", "example.com:443", False),
        ("a?", "ab", False),
        ("a?", "a?", True),
        ("[a]", "a", False),
    ],
)
def test_a_glob_matches_what_the_page_of_rules_says(pattern: str, text: str, *, expected: bool) -> None:
    assert Glob(pattern).matches(text) is expected


def test_on_the_bus_a_star_stops_at_dots_too() -> None:
    glob = Glob("status.*", TOPIC_SEPARATORS)
    assert glob.matches("status.ready")
    assert not glob.matches("status.ready.now")
    assert not glob.matches("status.ready/now")


@given(PATTERNS, TEXTS)
@settings(max_examples=500)
def test_matching_agrees_with_the_same_rules_as_a_regular_expression(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) is (by_regex(pattern).fullmatch(text) is not None)


@given(PATTERNS.filter(lambda pattern: "**" not in pattern), TEXTS)
@settings(max_examples=200)
def test_a_single_star_never_crosses_a_separator(pattern: str, text: str) -> None:
    if Glob(pattern).matches(text):
        assert text.count("/") == pattern.count("/")


@given(PATTERNS, PATTERNS, TEXTS)
@settings(max_examples=500)
def test_what_a_covered_glob_matches_its_coverer_matches(wide: str, narrow: str, text: str) -> None:
    if Glob(wide).covers(Glob(narrow)) and Glob(narrow).matches(text):
        assert Glob(wide).matches(text)


SHORT_TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("ab/#", repeat=size)]


@given(PATTERNS.filter(lambda pattern: len(pattern) <= 4), PATTERNS.filter(lambda pattern: len(pattern) <= 4))
def test_a_short_glob_that_is_not_covered_matches_something_short_that_is_missed(wide: str, narrow: str) -> None:
    if "." in wide + narrow or Glob(wide).covers(Glob(narrow)):
        return
    assert any(Glob(narrow).matches(text) and not Glob(wide).matches(text) for text in SHORT_TEXTS)


@given(PATTERNS)
def test_covering_is_reflexive_and_two_stars_cover_everything(pattern: str) -> None:
    assert Glob(pattern).covers(Glob(pattern))
    assert Glob("**").covers(Glob(pattern))


def test_a_hostile_pattern_costs_no_more_than_its_length() -> None:
    glob = Glob("*a" * 40 + "**b")
    began = time.process_time()
    assert not glob.matches("a" * 4000)
    assert time.process_time() - began < 1


def test_covering_between_hostile_patterns_ends_and_errs_towards_no() -> None:
    began = time.process_time()
    assert not Glob("**a" + "*".join("b" * 14) + "**").covers(Glob("**b" + "*".join("a" * 14) + "**"))
    assert time.process_time() - began < 10
