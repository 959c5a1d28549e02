"""Reading TOML into sections: unknown keys and wrong types are refused with the file, the path and a way out."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from borough.core.errors import Invalid

SectionT = TypeVar("SectionT", bound=msgspec.Struct)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        Invalid: it cannot be read or is not TOML (``unreadable_settings``).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeError) as error:
        raise Invalid(
            f"{path} cannot be read: {error}",
            code="unreadable_settings",
            resolution="make it a readable UTF-8 file",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid(
            f"{path} is not valid TOML: {error}",
            code="unreadable_settings",
            resolution="correct that line",
        ) from None


def to_section(data: Mapping[str, Any], section: type[SectionT], *, file: str) -> SectionT:
    """Return ``data`` as ``section``; ``file`` is named in errors.

    Raises:
        Invalid: a key is unknown (``unknown_setting``) or a value is not what it has to be (``invalid_setting``).
    """
    _refuse_unknown(data, inspect.type_info(section), root=inspect.type_info(section), path=(), file=file)
    try:
        return msgspec.convert(data, section)
    except msgspec.ValidationError as error:
        raise _invalid(error, data, section, file) from None


def known_keys(section: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return every dotted key that ``section`` knows; a table with free names shows ``<name>``."""
    return tuple(".".join(path) for path in _paths(inspect.type_info(section), ()))


def _refuse_unknown(value: Any, info: inspect.Type, *, root: inspect.Type, path: tuple[str, ...], file: str) -> None:
    known = {field.encode_name for struct_info in _structs(info) for field in struct_info.fields}
    if known and isinstance(value, Mapping):
        for key in value:
            if key not in known:
                raise _unknown(key, tuple(sorted(known)), root=root, path=path, file=file)
    for key, inner, inner_info in _children(value, info):
        _refuse_unknown(inner, inner_info, root=root, path=(*path, key), file=file)


def _children(value: Any, info: inspect.Type) -> Iterator[tuple[str, Any, inspect.Type]]:
    """Walk what ``value`` holds, each with the type that it ought to have."""
    if isinstance(value, Mapping):
        for struct_info in _structs(info):
            yield from (
                (f.encode_name, value[f.encode_name], f.type) for f in struct_info.fields if f.encode_name in value
            )
        for item_info in _free_tables(info):
            yield from ((key, inner, item_info) for key, inner in value.items())
    elif isinstance(value, list):
        for item_info in _lists(info):
            yield from ((str(index), inner, item_info) for index, inner in enumerate(value))


def _unknown(key: str, known: tuple[str, ...], *, root: inspect.Type, path: tuple[str, ...], file: str) -> Invalid:
    full = ".".join((*path, key))
    return Invalid(
        f"{file}: there is no setting {full!r}",
        code="unknown_setting",
        resolution=_suggestion(key, known, root=root, path=path),
    )


def _suggestion(key: str, known: tuple[str, ...], *, root: inspect.Type, path: tuple[str, ...]) -> str:
    """Prefer what looks alike in the same table, then what is called so elsewhere, then what is less alike."""
    everywhere = {other[-1]: other for other in reversed(list(_paths(root, ())))}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    far = difflib.get_close_matches(key, everywhere, n=1, cutoff=0.6)
    if near and (key not in everywhere or difflib.get_close_matches(key, near, cutoff=0.6)):
        return f"did you mean {'.'.join((*path, near[0]))!r}?"
    if far:
        return f"did you mean {'.'.join(everywhere[far[0]])!r}?"
    return f"known here: {', '.join(known)}"


def _invalid(
    error: msgspec.ValidationError, data: Mapping[str, Any], section: type[msgspec.Struct], file: str
) -> Invalid:
    what, _, where = str(error).partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    if "[...]" in path:
        path = _with_names(path, data, section)
    path = re.sub(r"\[(\d+)\]", r".\1", path)
    missing = re.match(r"Object missing required field `(\w+)`", what)
    if missing:
        full = ".".join(part for part in (path, missing[1]) if part)
        return Invalid(
            f"{file}: the setting {full!r} is missing",
            code="invalid_setting",
            resolution=f"add a line {missing[1]} = …",
        )
    return Invalid(
        f"{file}: {path or 'the file'}: {what[:1].lower()}{what[1:]}",
        code="invalid_setting",
        resolution=_choices(inspect.type_info(section), tuple(path.split("."))) or "correct the value",
    )


def _choices(info: inspect.Type, path: tuple[str, ...]) -> str | None:
    """Return what may stand at ``path``, where only certain words may."""
    if not path:
        values: list[object] = []
        for other in _alternatives(info):
            if isinstance(other, inspect.LiteralType):
                values.extend(other.values)
            elif isinstance(other, inspect.EnumType):
                values.extend(member.value for member in other.cls)
        return f"choose from {', '.join(map(str, values))}" if values else None
    inner: list[inspect.Type] = [*_free_tables(info), *_lists(info)]
    for struct_info in _structs(info):
        inner.extend(field.type for field in struct_info.fields if field.encode_name == path[0])
    return next((found for other in inner if (found := _choices(other, path[1:]))), None)


def _with_names(path: str, data: Mapping[str, Any], section: type[msgspec.Struct]) -> str:
    """Put the real name for the first ``[...]`` that msgspec leaves open: the table that fails alone."""
    outer, _, rest = path.partition("[...]")
    tables = data.get(outer, {})
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        try:
            msgspec.convert({**data, outer: {name: table}}, section)
        except msgspec.ValidationError as error:
            if "[...]" in str(error):
                return f"{outer}.{name}{rest}"
    return path


def _paths(info: inspect.Type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Walk every leaf of a section's type."""
    structs = tuple(_structs(info))
    tables = tuple(item for item in _free_tables(info) if tuple(_structs(item)))
    items = tuple(item for item in _lists(info) if tuple(_structs(item)))
    for struct_info in structs:
        for field in struct_info.fields:
            yield from _paths(field.type, (*path, field.encode_name))
    for item in tables:
        yield from _paths(item, (*path, "<name>"))
    for item in items:
        yield from _paths(item, (*path, "0"))
    if not (structs or tables or items):
        yield path


def _alternatives(info: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(info, inspect.Metadata):
        return _alternatives(info.type)
    if isinstance(info, inspect.UnionType):
        return tuple(other for member in info.types for other in _alternatives(member))
    return (info,)


def _structs(info: inspect.Type) -> Iterator[inspect.StructType]:
    yield from (other for other in _alternatives(info) if isinstance(other, inspect.StructType))


def _free_tables(info: inspect.Type) -> Iterator[inspect.Type]:
    yield from (other.value_type for other in _alternatives(info) if isinstance(other, inspect.DictType))


def _lists(info: inspect.Type) -> Iterator[inspect.Type]:
    kinds = (inspect.VarTupleType, inspect.ListType)
    yield from (other.item_type for other in _alternatives(info) if isinstance(other, kinds))
