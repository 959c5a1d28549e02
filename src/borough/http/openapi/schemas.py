"""The schemas of everything that operations take and give, each named once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, get_args

import msgspec

from borough.http.openapi.documents import Document
from borough.http.openapi.wire import Wire
from borough.http.operations import Operation

_REFERENCE = "#/components/schemas/{name}"

NO_LETTERS = re.compile(r"[^A-Za-z0-9]+")
"""What no name in a document holds."""

STRUCTURED = ("json", "yaml")
"""How the types of contents end whose inside has a schema."""


def schemas_of(operations: Sequence[Operation], wire: Wire) -> tuple[dict[Any, Document], Document]:
    """Return the schema of each type that occurs, and the named ones they refer to."""
    types: dict[Any, None] = {wire.error: None}
    for operation in operations:
        if operation.body is not None and operation.body is not bytes:
            types[operation.body] = None
        for answer in operation.answers:
            if answer.body is not None and answer.content_type.endswith(STRUCTURED):
                types[answer.body] = None
        if operation.query is not None:
            types.update((item.type, None) for item in msgspec.structs.fields(operation.query))
    listed = list(dict.fromkeys(part for kind in types for part in _alternatives(kind)))
    made, named = msgspec.json.schema_components(listed, ref_template=_REFERENCE, schema_hook=_schema_of)
    modules = sorted({part.__module__ for kind in listed for part in _parts(kind)}, key=len, reverse=True)
    short = _short_names(named, modules)
    found = [_renamed(schema, short) for schema in made]
    components = {short[name]: _titled(_renamed(schema, short), modules) for name, schema in named.items()}
    schemas = dict(zip(listed, found, strict=True))
    for kind in types:
        if kind not in schemas:
            schemas[kind] = {"anyOf": [schemas[part] for part in _alternatives(kind)]}
    return schemas, {name: components[name] for name in sorted(components)}


def _short_names(names: Iterable[str], modules: Iterable[str]) -> dict[str, str]:
    """Return how each component is called: what is made for a type has no ``modules`` in its name.

    Raises:
        ValueError: two structs would have one name.
    """
    short = {name: NO_LETTERS.sub("_", _bare(name, modules)).strip("_") for name in names}
    twice = sorted(name for name in short if "." in name and list(short.values()).count(short[name]) > 1)
    if twice:
        raise ValueError(f"two structs share a name: {', '.join(twice)}")
    return short


def _titled(schema: Document, modules: Iterable[str]) -> Document:
    """Return ``schema`` with no modules in its title: where a type stands in our sources is nobody's concern."""
    return schema | ({"title": _bare(schema["title"], modules)} if "title" in schema else {})


def _bare(name: str, modules: Iterable[str]) -> str:
    for module in modules:
        name = name.replace(f"{module}.", "")
    return name


def _parts(kind: Any) -> Iterable[type]:
    """Yield the structs that ``kind`` is made of, where it is written with brackets."""
    for part in get_args(kind):
        yield from _parts(part)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind


def _renamed(schema: Any, short: Mapping[str, str]) -> Any:
    """Return ``schema`` with its references as ``short`` has them."""
    if isinstance(schema, list):
        return [_renamed(item, short) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: _renamed(value, short) for name, value in schema.items()}
    target = changed.get("$ref")
    if isinstance(target, str):
        changed["$ref"] = _REFERENCE.format(name=short[target.removeprefix(_REFERENCE.format(name=""))])
    return changed


def _schema_of(kind: type) -> Document:
    """Return the schema of a type that msgspec does not know: anything at all, for JSON kept as it came."""
    if kind is object or kind is msgspec.Raw:
        return {"description": "any JSON value"}
    raise NotImplementedError  # so msgspec's hook says that it does not know the type either


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return what ``kind`` may be, one by one, where several are structs: as bodies of answers they need no tags."""
    parts = get_args(kind) if isinstance(kind, UnionType) else ()
    structs = [part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return parts if len(structs) > 1 else (kind,)
