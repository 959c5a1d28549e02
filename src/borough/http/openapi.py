"""The OpenAPI 3.1 document, derived from the operation table: what is served is what is written.

The document lists, for every operation, each answer and each error that can really occur, those of the layers below
the handlers included. It is deterministic: the same table gives the same bytes.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, UnionType
from typing import Any, get_args

import msgspec

from borough.auth.scopes import Scope
from borough.http.errors import Problem, title_of
from borough.http.operations import Access, Answer, ByAttempt, Operation

Document = dict[str, Any]

NOTHING: Mapping[str, str] = MappingProxyType({})

_PARAMETER = re.compile(r"\{([^}.]+)(?:\.\.\.)?\}")
_REFERENCE = "#/components/schemas/{name}"
_VERSION = re.compile(r"^/v[0-9]+")
_NO_LETTERS = re.compile(r"[^A-Za-z0-9]+")
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./{}-]*\Z")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})

_STRUCTURED = ("json", "yaml")
"""How the types of contents end whose inside has a schema."""

_SECURITY_SCHEMES: Document = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, where no Authorization header is sent.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, an access token of the issuer, or the operator's credential.",
    },
    "worker": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token that a worker got when it was registered.",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What all operations of a surface share on the wire: its errors, and how its callers prove who they are."""

    error: type = Problem
    error_type: str = "application/problem+json"
    told: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Codes of the layers below the handlers that the surface tells by another code and status."""
    security: Mapping[str, Document] = field(default_factory=lambda: _SECURITY_SCHEMES)
    public_pages: bool = False
    """Whether pages of other origins may write: none is refused then for where it comes from."""
    keeps_answers: bool = True
    """Whether the answer to a POST with an ``Idempotency-Key`` is kept and repeated."""


TOWN_WIRE = Wire()

_RETRY_AFTER: Document = {
    "description": "Seconds to wait before the request is repeated",
    "schema": {"type": "integer", "minimum": 1},
}
_ERROR_HEADERS: Mapping[int, Document] = {
    401: {"WWW-Authenticate": {"description": "How to log in (RFC 6750)", "schema": {"type": "string"}}},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}

_IDEMPOTENCY_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeating the request with the same key does nothing twice and returns the first answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_DONE_ONCE = "Repeating the request with the same key makes the same things, not others."
_LAST_EVENT_ID: Document = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that was read: the stream goes on after it.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$"},
}


def document(
    operations: Sequence[Operation],
    *,
    title: str,
    version: str,
    description: str,
    tags: Mapping[str, str] = NOTHING,
    path_parameters: Mapping[str, str] = NOTHING,
    wire: Wire = TOWN_WIRE,
) -> Document:
    """Return the document of ``operations``. ``tags`` and ``path_parameters`` say what those of a name are about.

    Raises:
        ValueError: two different structs have one name, so their names in the document would depend on modules.
    """
    schemas, components = _schemas(operations, wire)
    names = operation_ids(operations)
    paths: dict[str, Document] = {}
    for operation, name in zip(operations, names, strict=True):
        described = _operation(operation, name, schemas, path_parameters, wire)
        # A tail is a parameter like others here: the format has no word for one that holds slashes.
        paths.setdefault(operation.path.replace("...}", "}"), {})[operation.method.lower()] = described
    used = dict.fromkeys(operation.tag for operation in operations)
    ordered = [tag for tag in tags if tag in used] + [tag for tag in used if tag not in tags]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": tags.get(tag, tag)} for tag in ordered],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": dict(wire.security)},
    }


def framework_errors(operation: Operation, wire: Wire = TOWN_WIRE) -> dict[str, int]:
    """Return the codes that the layers below the handler may answer on this route."""
    return dict(wire.told.get(code, (code, status)) for code, status in _layers_errors(operation, wire).items())


def _layers_errors(operation: Operation, wire: Wire) -> dict[str, int]:
    codes = {"duplicate_header": 400, "invalid_path": 400, "host_not_allowed": 403, "uri_too_long": 414}
    codes |= {"internal_error": 500, "stopping": 503}
    if operation.query is not None:
        codes["invalid_query"] = 400
    if operation.method not in {"GET", "HEAD"} and not wire.public_pages:
        codes["cross_origin"] = 403
    if operation.metered:
        codes["rate_limited"] = 429
    if not operation.streaming:
        codes["request_timeout"] = 408
    if operation.method == "POST":
        codes["invalid_idempotency_key"] = 400
        if wire.keeps_answers and not operation.secret_answer:
            codes |= {"idempotency_key_in_use": 409, "idempotency_key_reused": 422}
    return codes | _access_errors(operation) | _body_errors(operation)


def _access_errors(operation: Operation) -> dict[str, int]:
    if operation.access is Access.PUBLIC:
        return {}
    codes = {"authentication_required": 401, "invalid_credentials": 401, "rate_limited": 429}
    if operation.access is Access.CALLER:
        return codes
    codes["worker_token_required" if operation.access is Access.WORKER else "insufficient_scope"] = 403
    if operation.by_attempt is ByAttempt.LIVE:
        codes["stale_epoch"] = 409
    elif operation.by_attempt is ByAttempt.NO and operation.access is not Scope.READ:
        codes["not_for_attempts"] = 403
    return codes


def _body_errors(operation: Operation) -> dict[str, int]:
    if operation.body is None:
        return {}
    codes = {"invalid_content_length": 400, "too_large": 413, "unsupported_media_type": 415}
    return codes if operation.body is bytes else codes | {"malformed_json": 400, "invalid_body": 422}


def operation_ids(operations: Iterable[Operation]) -> list[str]:
    """Return one name an operation, from method and path alone, so that no other route can change it.

    ``GET /v1/tasks/{task_id}`` is ``getTasksByTaskId``.
    """
    return [_camel([operation.method.lower(), *(_words(operation.path) or ["root"])]) for operation in operations]


def to_json(whole: Document) -> bytes:
    """Return ``whole`` as JSON."""
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def to_yaml(whole: Document) -> str:
    """Return ``whole`` as YAML 1.2: blocks for structure, and texts as JSON strings, which YAML reads alike."""
    return "\n".join(_yaml_lines(whole, 0)) + "\n"


def _schemas(operations: Sequence[Operation], wire: Wire) -> tuple[dict[Any, Document], Document]:
    """Return the schema of each type that occurs, and the named ones they refer to."""
    types: dict[Any, None] = {wire.error: None}
    for operation in operations:
        if operation.body is not None and operation.body is not bytes:
            types[operation.body] = None
        for answer in operation.answers:
            if answer.body is not None and answer.content_type.endswith(_STRUCTURED):
                types[answer.body] = None
        if operation.query is not None:
            types.update((item.type, None) for item in msgspec.structs.fields(operation.query))
    listed = list(dict.fromkeys(part for kind in types for part in _alternatives(kind)))
    made, named = msgspec.json.schema_components(listed, ref_template=_REFERENCE, schema_hook=_schema_of)
    short = _short_names(named, listed)
    found = [_renamed(schema, short) for schema in made]
    components = {short[name]: _renamed(schema, short) for name, schema in named.items()}
    schemas = dict(zip(listed, found, strict=True))
    for kind in types:
        if kind not in schemas:
            schemas[kind] = {"anyOf": [schemas[part] for part in _alternatives(kind)]}
    return schemas, {name: components[name] for name in sorted(components)}


def _short_names(names: Iterable[str], kinds: Iterable[Any]) -> dict[str, str]:
    """Return how each component is called: what is made for a type has no modules in its name.

    Raises:
        ValueError: two structs would have one name.
    """
    modules = sorted({part.__module__ for kind in kinds for part in _parts(kind)}, key=len, reverse=True)
    short: dict[str, str] = {}
    for name in names:
        bare = name
        for module in modules:
            bare = bare.replace(f"{module}.", "")
        short[name] = _NO_LETTERS.sub("_", bare).strip("_")
    twice = sorted(name for name in short if "." in name and list(short.values()).count(short[name]) > 1)
    if twice:
        raise ValueError(f"two structs share a name: {', '.join(twice)}")
    return short


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


def _operation(
    operation: Operation,
    name: str,
    schemas: Mapping[Any, Document],
    path_parameters: Mapping[str, str],
    wire: Wire,
) -> Document:
    described: Document = {"operationId": name, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    parameters = _parameters(operation, schemas, path_parameters, wire)
    if parameters:
        described["parameters"] = parameters
    if operation.body is bytes:
        content: Document = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    elif operation.body is not None:
        content = {"application/json": {"schema": schemas[operation.body]}}
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    described["responses"] = _responses(operation, schemas, wire)
    described["security"] = _security(operation.access, wire)
    return described


def _parameters(
    operation: Operation, schemas: Mapping[Any, Document], path_parameters: Mapping[str, str], wire: Wire
) -> list[Document]:
    parameters: list[Document] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": path_parameters.get(name, name.replace("_", " ")),
            "schema": {"type": "string", **({"format": "uuid"} if name.endswith("_id") else {"minLength": 1})},
        }
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is not None:
        parameters.extend(_query_parameter(item, schemas) for item in msgspec.structs.fields(operation.query))
    if operation.method == "POST":
        described = _IDEMPOTENCY_KEY if wire.keeps_answers else {**_IDEMPOTENCY_KEY, "description": _DONE_ONCE}
        parameters.append(described)
    if any(answer.content_type.startswith("text/event-stream") for answer in operation.answers):
        parameters.append(_LAST_EVENT_ID)
    return parameters


def _query_parameter(item: msgspec.structs.FieldInfo, schemas: Mapping[Any, Document]) -> Document:
    schema = dict(schemas[item.type])
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        # Absent is how a query says null.
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | choices[0]
    description = schema.pop("description", item.encode_name.replace("_", " "))
    if item.default is not msgspec.NODEFAULT and item.default is not None:
        schema["default"] = msgspec.to_builtins(item.default)
    return {
        "name": item.encode_name,
        "in": "query",
        "required": item.required,
        "description": description,
        "schema": schema,
    }


def _responses(operation: Operation, schemas: Mapping[Any, Document], wire: Wire) -> Document:
    responses: dict[int, Document] = {}
    for answer in operation.answers:
        described = responses.setdefault(answer.status, {"description": answer.description})
        if answer.body is not None:
            described.setdefault("content", {})[answer.content_type] = {"schema": _answer_schema(answer, schemas)}
    codes: dict[int, list[str]] = {}
    for code, status in sorted({**framework_errors(operation, wire), **operation.errors}.items()):
        codes.setdefault(status, []).append(code)
    for status, listed in codes.items():
        told = f"{title_of(status)}: {', '.join(listed)}"
        described = responses.setdefault(status, {"description": told})
        if described["description"] != told:
            described["description"] += f". {told}"
        described.setdefault("content", {}).setdefault(wire.error_type, {"schema": schemas[wire.error]})
        if status in _ERROR_HEADERS:
            described["headers"] = _ERROR_HEADERS[status]
    return {str(status): responses[status] for status in sorted(responses)}


def _answer_schema(answer: Answer, schemas: Mapping[Any, Document]) -> Document:
    if answer.content_type.endswith(_STRUCTURED):
        return schemas[answer.body]
    if answer.body is bytes and not answer.content_type.startswith("text/"):
        return {"type": "string", "format": "binary"}
    return {"type": "string"}


def _security(access: Scope | Access, wire: Wire) -> list[Document]:
    if access is Access.PUBLIC:
        return []
    if access is Access.CALLER:
        return [{name: []} for name in wire.security]
    if access is Access.WORKER:
        return [{"worker": []}]
    return [{"bearer": [str(access)]}, {"apiKey": [str(access)]}]


def _words(path: str) -> list[str]:
    return [word for word in _NO_LETTERS.split(_VERSION.sub("", path).replace("{", "by_")) if word]


def _camel(words: Sequence[str]) -> str:
    return "".join([*words[:1], *(word[:1].upper() + word[1:] for word in words[1:])])


def _yaml_lines(value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines.extend(_yaml_entry(f"{indent}{_yaml_key(key)}:", item, depth))
        return lines
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            inner = _yaml_lines(item, depth + 1)
            lines.append(f"{indent}- {inner[0].lstrip(' ')}")
            lines.extend(inner[1:])
        return lines
    return [indent + json.dumps(value, ensure_ascii=False)]


def _yaml_entry(head: str, value: Any, depth: int) -> list[str]:
    if isinstance(value, dict | list) and value:
        return [head, *_yaml_lines(value, depth + 1)]
    return [f"{head} {json.dumps(value, ensure_ascii=False)}"]


def _yaml_key(key: str) -> str:
    return key if _PLAIN.match(key) and key.lower() not in _YAML_WORDS else json.dumps(key, ensure_ascii=False)
