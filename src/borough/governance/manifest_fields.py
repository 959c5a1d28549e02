"""Reading the fields of a document: each problem is noted with its path, and reading goes on."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from borough.core.errors import BoroughError

MOST_TEXT = 65_536
MOST_ITEMS = 1000

Word = TypeVar("Word", bound=StrEnum)
Value = TypeVar("Value")

_SIZE_UNITS = {
    "": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
    "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi|Ti|K|M|G|T|)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong, and where: ``path`` reads like ``spec.capabilities[2]``."""

    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """Return it as one line."""
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class Fields:
    """One mapping of the document. Every key that is read is known; ``close`` refuses the others."""

    def __init__(self, value: object, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self._known: list[str] = []
        self.present = isinstance(value, Mapping)
        self._members: Mapping[str, object] = value if isinstance(value, Mapping) else {}
        if value is not None and not self.present:
            self.note("", "has to be a mapping")

    def at(self, name: str) -> str:
        """Return the path of a member."""
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def note(self, name: str, message: str, hint: str | None = None) -> None:
        """Note a problem with a member."""
        path = self.at(name)
        self.problems.append(Problem(path=path, message=f"'{path or 'document'}' {message}", hint=hint))

    def require(self, *names: str) -> None:
        """Note every one of ``names`` that is not there."""
        for name in names:
            if self._members.get(name) is None:
                path = self.at(name)
                self.problems.append(Problem(path=path, message=f"missing required field '{path}'"))

    def raw(self, name: str) -> object:
        """Return a member as it is, ``None`` when it is not there."""
        self._known.append(name)
        return self._members.get(name)

    def has(self, name: str) -> bool:
        """Tell whether a member is there and not null."""
        return self._members.get(name) is not None

    def text(self, name: str, *, pattern: re.Pattern[str] | None = None, rule: str = "") -> str | None:
        """Return a member that is text (and fits ``pattern``; ``rule`` says it in words)."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.note(name, "has to be text", "put it in quotes" if isinstance(value, int | float) else None)
            return None
        if len(value) > MOST_TEXT or "\0" in value:
            self.note(name, f"has a NUL character or more than {MOST_TEXT} characters")
            return None
        if pattern is not None and not pattern.fullmatch(value):
            self.note(name, f"is {value[:80]!r}", rule)
            return None
        return value

    def whole(self, name: str, *, least: int, most: int) -> int | None:
        """Return a member that is a whole number within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.note(name, f"has to be a whole number from {least} to {most}")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """Return a member that is true or false."""
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return value
        self.note(name, "has to be true or false")
        return None

    def size_bytes(self, name: str) -> int | None:
        """Return a member that is an amount of memory (``512Mi``), in bytes."""
        value = self.raw(name)
        if value is None:
            return None
        found = _SIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
        size = int(found[1]) * _SIZE_UNITS[found[2]] if found else 0
        if not 0 < size < 2**63:
            self.note(name, "has to be a size", "write it as 512Mi or 2Gi")
            return None
        return size

    def word(self, name: str, words: type[Word], aliases: Mapping[str, Word] | None = None) -> Word | None:
        """Return a member that is one of some words."""
        value = self.raw(name)
        if value is None:
            return None
        known = {word.value: word for word in words} | dict(aliases or {})
        if isinstance(value, str) and value in known:
            return known[value]
        said = f"is {str(value)[:80]!r}, and has to be one of {', '.join(known)}"
        self.note(name, said, did_you_mean(str(value), known))
        return None

    def texts(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return the texts of a list with their paths."""
        kept = []
        for path, item in self.items(name):
            if isinstance(item, str) and "\0" not in item and len(item) <= MOST_TEXT:
                kept.append((path, item))
            else:
                self.problems.append(Problem(path=path, message=f"'{path}' has to be text"))
        return tuple(kept)

    def items(self, name: str) -> Iterator[tuple[str, object]]:
        """Yield the items of a list with their paths."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.note(name, "has to be a list")
            return
        if len(value) > MOST_ITEMS:
            self.note(name, f"has more than {MOST_ITEMS} items")
            return
        for number, item in enumerate(value):
            yield f"{self.at(name)}[{number}]", item

    def members(self, name: str) -> Iterator[tuple[str, object]]:
        """Yield the members of a mapping whose keys are free."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, Mapping):
            self.note(name, "has to be a mapping")
            return
        yield from value.items()

    def section(self, name: str) -> "Fields":
        """Return a mapping within this one; an absent one is empty."""
        return Fields(self.raw(name), self.at(name), self.problems)

    def sections(self, name: str) -> Iterator["Fields"]:
        """Yield the mappings of a list."""
        for path, item in self.items(name):
            yield Fields({} if item is None else item, path, self.problems)

    def parsed(self, name: str, value: str | None, parse: Callable[[str], Value]) -> Value | None:
        """Return what ``parse`` makes of a text; what it refuses is a problem of the member."""
        return None if value is None else parsed_at(self.at(name), value, parse, self.problems)

    def close(self) -> None:
        """Note every key that was not read."""
        for name in self._members:
            if name not in self._known:
                path = self.at(str(name)[:80])
                hint = did_you_mean(str(name), self._known) or f"known here: {', '.join(sorted(set(self._known)))}"
                self.problems.append(Problem(path=path, message=f"unknown field '{path}'", hint=hint))


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a question for the known word that is nearest to ``word``, if one is near."""
    words = [*map(str, known)]
    near = difflib.get_close_matches(word, words, n=1) or [
        one for one in words if len(word) > 1 and one.startswith(word)
    ]
    return f"did you mean {near[0]!r}?" if near else None


def parsed_at(path: str, text: str, parse: Callable[[str], Value], problems: list[Problem]) -> Value | None:
    """Return what ``parse`` makes of ``text``, or note why it refuses."""
    try:
        return parse(text)
    except BoroughError as error:
        said = error.message if error.reason is None else f"{error.message}: {error.reason}"
        problems.append(Problem(path=path, message=f"'{path}': {said}", hint=error.resolution))
        return None
