"""The one matcher of scopes.

``*`` stands for any run of characters without a separator, ``**`` for any run with separators; everything else is
literal, also ``?`` and ``[``. ``**/`` at the start of a segment also stands for no segment at all, and a trailing
``/**`` also matches what it hangs from: ``/a/**/b`` matches ``/a/b``, and ``/a/**`` matches ``/a``.

Matching is linear in the length of the text whatever the pattern: a manifest may be hostile. A pattern is an
automaton whose states are the pattern's positions, kept as the bits of one integer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

PATH_SEPARATORS = "/"
TOPIC_SEPARATORS = "/."
"""On the bus both the dot and the slash end a segment."""

_MOST_COVER_STATES = 20_000
"""Pairs of states looked at before ``covers`` gives up and says no."""


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern; equal patterns are equal globs."""

    pattern: str
    separators: str = PATH_SEPARATORS
    automaton: "_Automaton" = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)
    _suffix: str = field(init=False, repr=False, compare=False)
    _shape: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        prefix, star, rest = self.pattern.partition("*")
        deep = rest.startswith("*")
        suffix = rest[1:] if deep else rest
        object.__setattr__(self, "automaton", _compile(self.pattern, self.separators))
        object.__setattr__(self, "_prefix", prefix)
        object.__setattr__(self, "_suffix", self.pattern[self.pattern.rfind("*") + 1 :] if star else "")
        object.__setattr__(self, "_shape", _shape(star, deep, prefix, suffix, self.separators))

    @property
    def is_literal(self) -> bool:
        """Tell whether the pattern matches exactly itself."""
        return self._shape == _LITERAL

    @property
    def anchor(self) -> str:
        """Return letters that every match begins with; for indexes."""
        # Without its last separator, since "/a/**" also matches "/a".
        return self._prefix[:-1] if self._prefix[-1:] in [*self.separators] else self._prefix

    def matches(self, text: str) -> bool:
        """Tell whether the whole of ``text`` matches."""
        shape = self._shape
        if shape == _LITERAL:
            return text == self.pattern
        if shape == _BELOW:
            return text.startswith(self._prefix) or text == self._prefix[:-1]
        if shape == _GENERAL:
            return self.automaton.accepts(text)
        prefix, suffix = self._prefix, self._suffix
        if not (text.startswith(prefix) and text.endswith(suffix) and len(text) >= len(prefix) + len(suffix)):
            return False
        if shape == _ONE_DEEP_STAR:
            return True
        middle = text[len(prefix) : len(text) - len(suffix)]
        return not any(separator in middle for separator in self.separators)

    def covers(self, other: "Glob") -> bool:
        """Tell whether everything that ``other`` matches is matched here.

        Exact for patterns of ordinary size; for pathological ones the answer may be a false "no", never a false
        "yes".
        """
        if self == other:
            return True
        if other.is_literal:
            return self.matches(other.pattern)
        if self.separators != other.separators:
            return False
        return self.automaton.includes(other.automaton)


_LITERAL, _BELOW, _ONE_STAR, _ONE_DEEP_STAR, _GENERAL = range(5)
"""Shapes of patterns; all but the last are matched without running the automaton."""


def _shape(star: str, deep: bool, prefix: str, suffix: str, separators: str) -> int:  # noqa: FBT001 - one private call
    if not star:
        return _LITERAL
    if "*" in suffix:
        return _GENERAL
    if not deep:
        return _ONE_STAR
    at_segment = not prefix or prefix[-1] in separators
    if not suffix:
        return _BELOW if prefix and at_segment and len(prefix) > 1 else _ONE_DEEP_STAR
    # "/a/**/b" may skip its segments together with their separator: that is more than one run of characters.
    return _GENERAL if at_segment and suffix[0] in separators else _ONE_DEEP_STAR


@lru_cache(maxsize=4096)
def compile_glob(pattern: str, separators: str = PATH_SEPARATORS) -> Glob:
    """Return the glob for ``pattern``; equal patterns are compiled once."""
    return Glob(pattern, separators)


@dataclass(frozen=True, slots=True)
class _Automaton:
    """Bit ``i`` is "the first ``i`` tokens are used up"."""

    literals: dict[str, int]
    """Where each character may be consumed by a literal."""
    shallow: int
    deep: int
    jumps: tuple[tuple[int, int], ...]
    """From each of these states one may be in that state too, at no cost; in rising order."""
    start: int
    accepting: int
    separators: str

    def accepts(self, text: str) -> bool:
        """Tell whether ``text`` leads from the start to the end."""
        states = self.start
        for character in text:
            states = self.step(states, character)
            if not states:
                return False
        return bool(states & self.accepting)

    def step(self, states: int, character: str) -> int:
        """Return the states after ``character``."""
        stay = self.deep if character in self.separators else self.deep | self.shallow
        moved = (states & stay) | ((states & self.literals.get(character, 0)) << 1)
        return self.spread(moved)

    def spread(self, states: int) -> int:
        """Return ``states`` and what can be reached from them at no cost."""
        for source, target in self.jumps:
            if states & source:
                states |= target
        return states

    def includes(self, other: "_Automaton") -> bool:
        """Tell whether every text that ``other`` accepts is accepted here; gives up with "no"."""
        alphabet = sorted(set(self.literals) | set(other.literals) | set(self.separators))
        outsider = next(c for c in _characters() if c not in alphabet)
        todo = [(other.start, self.start)]
        seen = set(todo)
        while todo:
            theirs, ours = todo.pop()
            if theirs & other.accepting and not ours & self.accepting:
                return False
            for character in (*alphabet, outsider):
                pair = (other.step(theirs, character), self.step(ours, character))
                if pair[0] and pair not in seen:
                    seen.add(pair)
                    todo.append(pair)
            if len(seen) > _MOST_COVER_STATES:
                return False
        return True


def _characters() -> Iterator[str]:
    """Yield more characters than any pattern has."""
    return (chr(code) for code in range(0x100, 0xD800))


def _compile(pattern: str, separators: str) -> _Automaton:
    literals: dict[str, int] = {}
    shallow = deep = 0
    jumps: list[tuple[int, int]] = []
    tokens = _tokens(pattern, separators)
    last = len(tokens)
    for place, token in enumerate(tokens):
        here = 1 << place
        if token == _ENTER:
            # Either into the run, or past it and the separator that ends it.
            jumps.append((here, here << 1 | here << 3))
        elif token == _DEEP:
            deep |= here
            jumps.append((here, here << 1))
            if place > 1 and place + 1 == last and tokens[place - 1] in separators:
                jumps.append((here >> 1, here << 1))
        elif token == _SHALLOW:
            shallow |= here
            jumps.append((here, here << 1))
        else:
            literals[token] = literals.get(token, 0) | here
    jumps.sort()
    bare = _Automaton(literals, shallow, deep, tuple(jumps), 1, 1 << last, separators)
    return _Automaton(literals, shallow, deep, tuple(jumps), bare.spread(1), 1 << last, separators)


_SHALLOW, _DEEP, _ENTER = "*", "**", "**/"


def _tokens(pattern: str, separators: str) -> list[str]:
    """Split into characters, ``*`` and ``**`` (a longer run of stars is ``**``); mark runs that may be skipped."""
    tokens: list[str] = []
    place = 0
    while place < len(pattern):
        if pattern[place] != "*":
            tokens.append(pattern[place])
            place += 1
            continue
        end = place
        while end < len(pattern) and pattern[end] == "*":
            end += 1
        whole_segment = (not place or pattern[place - 1] in separators) and pattern[end : end + 1] in [*separators]
        if end - place == 1:
            tokens.append(_SHALLOW)
        else:
            tokens.extend([_ENTER, _DEEP] if whole_segment else [_DEEP])
        place = end
    return tokens
