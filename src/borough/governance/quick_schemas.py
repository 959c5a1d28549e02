"""A quick yes for plain JSON Schemas: most arguments fit, and most schemas say little more than names and types.

What is made here says yes only where a validator would too. Where it does not say yes, or the schema says anything that
is not known here, the validator decides, and tells what is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

Fits = Callable[[Any], bool]
"""Tells whether a value surely fits."""

_ANNOTATIONS = frozenset({"description", "title", "default", "examples", "$comment", "deprecated", "readOnly"})
_TYPES: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
_BY_TYPE: dict[str, frozenset[str]] = {
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
}


def quick(schema: object) -> Fits | None:
    """Return what tells quickly whether a value fits ``schema``; ``None`` where only a validator can."""
    if not isinstance(schema, Mapping):
        return None
    said = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    if said.keys() == {"enum"}:
        return _one_of(said["enum"])
    if said.keys() == {"anyOf"}:
        return _any_of(said["anyOf"])
    kind = said.pop("type", None)
    if not isinstance(kind, str) or kind not in _TYPES or not said.keys() <= _BY_TYPE[kind]:
        return None
    return {"string": _text, "integer": _whole, "object": _object, "array": _array}.get(kind, _plain)(
        _TYPES[kind], said
    )


def _plain(kind: type, _: Mapping[str, Any]) -> Fits:
    return lambda value: type(value) is kind


def _text(kind: type, said: Mapping[str, Any]) -> Fits:
    if not said:
        return _plain(kind, said)
    least, most = said.get("minLength", 0), said.get("maxLength", float("inf"))
    return lambda value: type(value) is str and least <= len(value) <= most


def _whole(kind: type, said: Mapping[str, Any]) -> Fits:
    least, most = said.get("minimum", float("-inf")), said.get("maximum", float("inf"))
    # The exact type: in Python, a boolean is an integer too.
    return lambda value: type(value) is kind and least <= value <= most


def _one_of(allowed: object) -> Fits | None:
    if not isinstance(allowed, list) or not all(isinstance(each, str) for each in allowed):
        return None
    words = frozenset(allowed)
    return lambda value: type(value) is str and value in words


def _any_of(schemas: object) -> Fits | None:
    ways = [quick(each) for each in schemas] if isinstance(schemas, list) else [None]
    known = [way for way in ways if way is not None]
    return (lambda value: any(way(value) for way in known)) if known else None


def _array(_: type, said: Mapping[str, Any]) -> Fits | None:
    least, most = said.get("minItems", 0), said.get("maxItems", float("inf"))
    each = quick(said["items"]) if "items" in said else _everything
    if each is None:
        return None
    return lambda value: type(value) is list and least <= len(value) <= most and all(map(each, value))


def _object(_: type, said: Mapping[str, Any]) -> Fits | None:
    fields = {name: quick(schema) for name, schema in said.get("properties", {}).items()}
    known = {name: way for name, way in fields.items() if way is not None}
    required = tuple(said.get("required", ()))
    rest = said.get("additionalProperties", True)
    other = {True: _everything, False: _nothing}.get(rest) if isinstance(rest, bool) else quick(rest)
    if len(known) != len(fields) or other is None:
        return None

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name in required:
            if name not in value:
                return False
        for name, inner in value.items():  # noqa: SIM110 - a generator would take twice as long
            if not known.get(name, other)(inner):
                return False
        return True

    return fits


def _everything(_: Any) -> bool:
    return True


def _nothing(_: Any) -> bool:
    return False
