"""Editing single settings in a TOML file; comments and order stay.

The library for that is loaded with the first edit: a server that only reads its settings starts without it.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, cast

from borough.core.errors import Invalid, NotFound

Check = Callable[[Mapping[str, Any]], object]
"""Raises ``Invalid`` for a document that may not stand."""


def with_setting(document: str, key: str, written: str, *, check: Check, file: str) -> str:
    """Return ``document`` with ``key`` set to what ``written`` means.

    ``written`` is taken as a TOML value where that fits the setting, else as plain text: so ``8080`` is a number for
    a port and a word for a name.

    Raises:
        Invalid: the setting is unknown, or no reading of ``written`` fits it (as ``check`` says).
    """
    first_refusal: Invalid | None = None
    for value in _readings(written):
        changed = _changed(document, key, value, file=file)
        try:
            check(tomllib.loads(changed))
        except Invalid as refusal:
            first_refusal = first_refusal or refusal
        else:
            return changed
    raise first_refusal or Invalid(f"{file}: {key} cannot be set to that", code="invalid_setting")


def setting(data: Mapping[str, Any], key: str, *, file: str) -> Any:
    """Return what ``key`` is set to.

    Raises:
        NotFound: it is not set (``setting_not_set``).
    """
    value: Any = data
    for part in split_key(key):
        if not isinstance(value, Mapping) or part not in value:
            raise NotFound(
                f"{file}: {key} is not set",
                code="setting_not_set",
                resolution=f"set it with: tt config {key} VALUE",
            )
        value = value[part]
    return value


def split_key(key: str) -> list[str]:
    """Return the parts of a dotted key.

    Raises:
        Invalid: a part is empty (``unknown_setting``).
    """
    parts = key.split(".")
    if not all(parts):
        raise Invalid(
            f"{key!r} is not the name of a setting",
            code="unknown_setting",
            resolution="write it like townhall.rest_port",
        )
    return parts


def toml_string(text: str) -> str:
    """Return ``text`` as a TOML string with its quotes."""
    import tomlkit  # noqa: PLC0415 - see the module

    return tomlkit.item(text).as_string()


def _readings(written: str) -> Iterator[Any]:
    try:
        yield tomllib.loads(f"value = {written}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        # Not TOML: then it can only be meant as text.
        yield written
    else:
        yield written


def _changed(document: str, key: str, value: Any, *, file: str) -> str:
    import tomlkit  # noqa: PLC0415 - see the module
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415 - see the module

    try:
        tree = tomlkit.parse(document)
    except TOMLKitError as error:
        raise Invalid(
            f"{file} is not valid TOML: {error}", code="unreadable_settings", resolution="correct that line"
        ) from None
    *tables, last = split_key(key)
    table: MutableMapping[str, Any] = tree
    for name in tables:
        inner = table.get(name)
        if inner is None:
            table[name] = tomlkit.table(is_super_table=name != tables[-1])
            inner = table[name]
        if not isinstance(inner, MutableMapping):
            raise Invalid(
                f"{file}: {name} in {key!r} is not a table",
                code="unknown_setting",
                resolution="edit the file by hand",
            )
        table = cast("MutableMapping[str, Any]", inner)
    table[last] = value
    return tomlkit.dumps(tree)
