"""Paths → what serves them: a dictionary for fixed paths, a tree of segments for those with parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from borough.core.errors import Invalid

Target = TypeVar("Target")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_TAIL = "...}"


@dataclass(frozen=True, slots=True)
class Match(Generic[Target]):
    """What a path leads to: one target a method, and the parameters of the path for each."""

    methods: Mapping[str, tuple[tuple[str, ...], Target]]
    values: tuple[str, ...]

    def allowed(self) -> str:
        """Return the value of ``Allow``."""
        methods = set(self.methods)
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods))

    def target(self, method: str) -> tuple[Target, dict[str, str]] | None:
        """Return what serves ``method`` (``HEAD`` as ``GET``) and its parameters, or ``None``."""
        found = self.methods.get("GET" if method == "HEAD" else method)
        if found is None:
            return None
        names, target = found
        return target, dict(zip(names, self.values, strict=True))


@dataclass(slots=True)
class _Node(Generic[Target]):
    fixed: dict[str, "_Node[Target]"] = field(default_factory=dict)
    parameter: "_Node[Target] | None" = None
    tail: "_Node[Target] | None" = None
    methods: dict[str, tuple[tuple[str, ...], Target]] = field(default_factory=dict)


class Routes(Generic[Target]):
    """All routes. A fixed segment wins over a parameter, a parameter over a tail.

    A parameter ``{name}`` is one segment and never empty. A tail ``{name...}`` comes last and is all that is left of
    the path, slashes included; it is not empty either. An encoded slash is a slash in it.
    """

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._static: dict[str, Match[Target]] = {}

    def add(self, method: str, path: str, target: Target) -> None:
        """Add one route.

        Raises:
            ValueError: it is there already, the path is not absolute, or something comes after a tail.
        """
        if not path.startswith("/"):
            raise ValueError(f"{path!r} does not start with a slash")
        if _TAIL in path and not path.endswith(_TAIL):
            raise ValueError(f"{path!r} goes on after its tail")
        node, names = self._root, []
        for segment in path[1:].split("/"):
            if segment.startswith("{") and segment.endswith(_TAIL):
                names.append(segment[1 : -len(_TAIL)])
                node.tail = node.tail or _Node()
                node = node.tail
            elif segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(segment, _Node())
        if method in node.methods:
            raise ValueError(f"two operations for {method} {path}")
        node.methods[method] = (tuple(names), target)
        if not names:
            self._static[path] = Match(node.methods, ())

    def find(self, scope: Scope) -> Match[Target] | None:
        """Return the match for the request's path, or ``None``.

        Raises:
            Invalid: the path is not percent-encoded UTF-8 or holds control characters (``invalid_path``).
        """
        raw: bytes | None = scope.get("raw_path")
        path: str = scope["path"]
        if path.isascii() and (raw is None or b"%" not in raw):
            static = self._static.get(path)
            if static is not None:
                return static
            segments = _clean(path)[1:].split("/")
        else:
            segments = [_decoded(part) for part in (raw or path.encode("utf-8", "surrogatepass"))[1:].split(b"/")]
        values: list[str] = []
        node = _descend(self._root, segments, 0, values)
        return None if node is None else Match(node.methods, tuple(values))

    def has_below(self, path: str) -> bool:
        """Tell whether any route begins with the segments of ``path``."""
        node: _Node[Target] | None = self._root
        for segment in path[1:].split("/"):
            node = None if node is None else node.fixed.get(segment)
        return node is not None


def _descend(node: _Node[Target], segments: list[str], at: int, values: list[str]) -> _Node[Target] | None:
    if at == len(segments):
        return node if node.methods else None
    segment = segments[at]
    child = node.fixed.get(segment)
    if child is not None:
        found = _descend(child, segments, at + 1, values)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        values.append(segment)
        found = _descend(node.parameter, segments, at + 1, values)
        if found is not None:
            return found
        values.pop()
    rest = "/".join(segments[at:])
    if node.tail is None or not rest:
        return None
    values.append(rest)
    return node.tail


def _decoded(part: bytes) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise _bad_path("it is not UTF-8") from None
    return _clean(text)


def _clean(text: str) -> str:
    if _CONTROLS.search(text):
        raise _bad_path("it holds control characters")
    return text


def _bad_path(reason: str) -> Invalid:
    return Invalid(
        "the path cannot be read",
        code="invalid_path",
        reason=reason,
        resolution="percent-encode the path as UTF-8",
    )
