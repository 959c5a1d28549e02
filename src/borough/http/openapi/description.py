"""The OpenAPI 3.1 document, derived from the operation table: what is served is what is written.

The document lists, for every operation, each answer and each error that can really occur, those of the layers below
the handlers included. It is deterministic: the same table gives the same bytes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from borough.auth.scopes import Scope
from borough.http.errors import title_of
from borough.http.openapi.documents import Document
from borough.http.openapi.schemas import NO_LETTERS, STRUCTURED, schemas_of
from borough.http.openapi.wire import TOWN_WIRE, Wire, framework_errors
from borough.http.operations import Access, Answer, Operation

NOTHING: Mapping[str, str] = MappingProxyType({})
_PARAMETER = re.compile(r"\{([^}.]+)(?:\.\.\.)?\}")
_VERSION = re.compile(r"^/v[0-9]+")
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
    schemas, components = schemas_of(operations, wire)
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


def operation_ids(operations: Iterable[Operation]) -> list[str]:
    """Return one name an operation, from method and path alone, so that no other route can change it.

    ``GET /v1/tasks/{task_id}`` is ``getTasksByTaskId``.
    """
    return [_camel([operation.method.lower(), *(_words(operation.path) or ["root"])]) for operation in operations]


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
    if answer.content_type.endswith(STRUCTURED):
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
    return [word for word in NO_LETTERS.split(_VERSION.sub("", path).replace("{", "by_")) if word]


def _camel(words: Sequence[str]) -> str:
    return "".join([*words[:1], *(word[:1].upper() + word[1:] for word in words[1:])])
