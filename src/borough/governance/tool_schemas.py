"""JSON Schemas of tools: checked when a tool arrives, applied to each call. A stranger's schema costs bounded time.

Draft 2020-12 without what needs the network (references to elsewhere) and without regular expressions, which a
hostile schema could make endless: ``pattern`` is passed over, ``patternProperties`` is refused.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from borough.core.errors import Invalid
from borough.governance.quick_schemas import Fits, quick
from borough.governance.tools import Schema

MOST_PROBLEMS = 10
_DEEPEST = 32
_MOST_MEMBERS = 2000
_FORBIDDEN = frozenset({"patternProperties", "$dynamicRef", "$recursiveRef", "propertyNames"})

_validators: dict[int, tuple[Schema, tuple[Fits | None, Any]]] = {}
"""By the schema's identity; the schema is kept beside, so that no other can take its place in memory."""
_MOST_VALIDATORS = 1024


def check_schema(schema: object) -> None:
    """Let a schema pass that calls can be held against.

    Raises:
        Invalid: it is no JSON Schema of the plain kind (``invalid_schema``).
    """
    if not isinstance(schema, Mapping):
        raise _invalid_schema("it is not a mapping")
    _check_parts(schema, _DEEPEST, [_MOST_MEMBERS])
    library = _library()
    try:
        library.Draft202012Validator.check_schema(dict(schema))
    except library.SchemaError as error:
        raise _invalid_schema(f"at {error.json_path}: {error.message[:200]}") from None


def check_arguments(schema: Schema, arguments: object) -> None:
    """Let arguments pass that fit ``schema`` (one that ``check_schema`` let pass).

    Raises:
        Invalid: they do not (``invalid_request``; each problem with its place in ``details``).
    """
    fits, validator = _ready(schema)
    if fits is not None and fits(arguments):
        return
    try:
        errors = [*validator().iter_errors(arguments)]
    except (_references().exceptions.Unresolvable, RecursionError):
        raise _invalid_schema("a reference in it leads nowhere, or in circles") from None
    if errors:
        errors.sort(key=lambda error: [*map(str, error.path)])
        problems = [{"path": error.json_path, "message": error.message[:200]} for error in errors[:MOST_PROBLEMS]]
        raise Invalid(
            f"invalid request: {problems[0]['path']}: {problems[0]['message']}",
            code="invalid_request",
            resolution="read the tool's input schema and repeat the call",
            details={"problems": problems},
        )


def _ready(schema: Schema) -> tuple[Fits | None, Any]:
    known = _validators.get(id(schema))
    if known is not None and known[0] is schema:
        return known[1]
    if len(_validators) >= _MOST_VALIDATORS:
        _validators.clear()
    made = (quick(schema), cache(lambda: _validator(schema)))
    _validators[id(schema)] = (schema, made)
    return made


@cache
def _library() -> Any:
    """Return the library of schemas."""
    import jsonschema  # noqa: PLC0415 - it takes long to import, and few calls need it

    return jsonschema


@cache
def _references() -> Any:
    import referencing.exceptions  # noqa: PLC0415 - as above

    return referencing


@cache
def _kind() -> Any:
    from jsonschema.validators import extend  # noqa: PLC0415 - as above

    return extend(_library().Draft202012Validator, {"pattern": None})  # type: ignore[no-untyped-call] # its stubs


def _validator(schema: Schema) -> Any:
    return _kind()(dict(schema), registry=_references().Registry())


def _check_parts(value: object, depth: int, left: list[int]) -> None:
    left[0] -= 1
    if depth == 0 or left[0] < 0:
        raise _invalid_schema("it is too deep or too large")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _FORBIDDEN:
                raise _invalid_schema(f"{key} is not taken here")
            if key == "$ref" and not (isinstance(inner, str) and inner.startswith("#/")):
                raise _invalid_schema("a reference leads out of it")
            _check_parts(inner, depth - 1, left)
    elif isinstance(value, list):
        for inner in value:
            _check_parts(inner, depth - 1, left)


def _invalid_schema(reason: str) -> Invalid:
    return Invalid(
        "the schema cannot be used",
        code="invalid_schema",
        reason=reason,
        resolution="write a JSON Schema (2020-12) with local references and without patternProperties",
    )
