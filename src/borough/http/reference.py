"""The reference page: the OpenAPI document as one HTML page that needs no script, no network and no second file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

from borough.http.openapi.documents import Document

NO_OTHERS: Mapping[str, str] = MappingProxyType({})
_STYLE = """
:root{color-scheme:light dark;--text:#1c2024;--dim:#5c6570;--page:#fff;--card:#f6f7f9;--line:#d9dde3;--link:#0b57c2;
--get:#0a6640;--post:#0b57c2;--put:#8a5200;--delete:#b01e28}
@media(prefers-color-scheme:dark){:root{--text:#e6e8eb;--dim:#a0a8b3;--page:#131518;--card:#1c1f24;--line:#343a43;
--link:#82b1ff;--get:#66d19e;--post:#82b1ff;--put:#f0b35c;--delete:#ff8a8f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
a{color:var(--link)}
code{font:0.9em/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.skip{position:absolute;left:-999px}
.skip:focus{left:8px;top:8px;background:var(--page);padding:8px}
header,main,footer{max-width:1000px;margin:0 auto;padding:16px}
nav{max-width:1000px;margin:0 auto;padding:0 16px}
nav ul{columns:2 280px;padding-left:18px;margin:4px 0}
nav li{overflow-wrap:anywhere;break-inside:avoid}
h1{line-height:1.2}
h2{border-bottom:1px solid var(--line);padding-bottom:4px;margin-top:40px}
h3{margin:0;font-size:1.05rem;overflow-wrap:anywhere}
h4{margin:16px 0 4px;font-size:0.95rem}
article{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px;margin:16px 0}
article p{margin:6px 0}
.method{font-weight:700}
.get{color:var(--get)}.post{color:var(--post)}.put,.patch{color:var(--put)}.delete{color:var(--delete)}
.dim{color:var(--dim)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-top:1px solid var(--line)}
td:first-child{white-space:nowrap}
summary{cursor:pointer}
:target{outline:2px solid var(--link)}
@media(max-width:640px){table,tbody,tr,td{display:block}
thead{position:absolute;left:-999px}
tr{border-top:1px solid var(--line);padding:6px 0}
td,td:first-child{border:0;padding:0;white-space:normal;overflow-wrap:anywhere}
td:empty{display:none}
td:not(:first-child)::before{content:attr(data-title) ": ";color:var(--dim)}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's ``Content-Security-Policy``: this one style, and nothing else at all."""


def page(whole: Document, *, source: str = "/openapi.json", others: Mapping[str, str] = NO_OTHERS) -> str:
    """Return the page for an OpenAPI document, which is at ``source``; ``others`` are pages beside it, by title."""
    title = escape(whole["info"]["title"])
    groups = [(tag, _of_tag(whole, tag["name"])) for tag in whole["tags"]]
    contents = "".join(_contents(tag, operations) for tag, operations in groups)
    sections = "".join(_section(tag, operations) for tag, operations in groups)
    schemas = "".join(_schema_card(name, schema) for name, schema in whole["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<a class="skip" href="#operations">Skip to the operations</a>'
        f"<header><h1>{title}</h1><p>{escape(whole['info']['description'])}</p>"
        f'<p class="dim">Version {escape(whole["info"]["version"])}, also as '
        f'<a href="{escape(source)}">OpenAPI 3.1</a>.{_beside(others)}</p></header>'
        f'<nav aria-label="Contents">{contents}<p><a href="#schemas">Schemas</a></p></nav>'
        f'<main id="operations">{sections}<h2 id="schemas">Schemas</h2>{schemas}</main></body></html>\n'
    )


def _beside(others: Mapping[str, str]) -> str:
    links = ", ".join(f'<a href="{escape(path)}">{escape(title)}</a>' for title, path in others.items())
    return f" Also served here: {links}." if links else ""


def _of_tag(whole: Document, tag: str) -> list[tuple[str, str, Document]]:
    return [
        (method, path, operation)
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]


def _contents(tag: Document, operations: Sequence[tuple[str, str, Document]]) -> str:
    items = "".join(
        f'<li><a href="#{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></a></li>'
        for method, path, operation in operations
    )
    return f'<p><a href="#tag-{escape(tag["name"])}">{escape(tag["name"])}</a></p><ul>{items}</ul>'


def _section(tag: Document, operations: Sequence[tuple[str, str, Document]]) -> str:
    name = escape(tag["name"])
    about = "" if tag["description"] == tag["name"] else f"<p>{escape(tag['description'])}</p>"
    cards = "".join(_operation_card(*operation) for operation in operations)
    return f'<section aria-labelledby="tag-{name}"><h2 id="tag-{name}">{name}</h2>{about}{cards}</section>'


def _operation_card(method: str, path: str, operation: Document) -> str:
    name = escape(operation["operationId"])
    parts = [
        (
            f'<article id="{name}"><h3><a href="#{name}"><span class="method {method}">{method.upper()}</span> '
            f"<code>{escape(path)}</code></a></h3><p>{escape(operation['summary'])}</p>"
        )
    ]
    if "description" in operation:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    parts.append(f'<p class="dim">{_access(operation["security"])}</p>')
    if operation.get("parameters"):
        rows = (
            (_code(item["name"]), escape(item["in"]), _type(item["schema"]), escape(item["description"]))
            for item in operation["parameters"]
        )
        parts.append("<h4>Parameters</h4>" + _table(("Name", "In", "Type", "Meaning"), rows))
    if "requestBody" in operation:
        body = operation["requestBody"]
        kinds = ", ".join(f"{_code(kind)}: {_type(content['schema'])}" for kind, content in body["content"].items())
        parts.append(f"<h4>Body</h4><p>{kinds}{'' if body['required'] else ' (may be empty)'}</p>")
    answers = ((_code(status), _contents_of(answer), escape(answer["description"]))
               for status, answer in operation["responses"].items())  # fmt: skip
    parts.append("<h4>Answers</h4>" + _table(("Status", "Body", "Meaning"), answers) + "</article>")
    return "".join(parts)


def _schema_card(name: str, schema: Document) -> str:
    parts = [f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3>']
    if "description" in schema:
        parts.append(f"<p>{escape(schema['description'])}</p>")
    required = set(schema.get("required", ()))
    rows = (
        (_code(member), _type(inner), "yes" if member in required else "no", escape(inner.get("description", "")))
        for member, inner in schema.get("properties", {}).items()
    )
    parts.append(_table(("Member", "Type", "Required", "Meaning"), rows) if "properties" in schema else _type(schema))
    return "".join(parts) + "</article>"


def _contents_of(answer: Document) -> str:
    return ", ".join(
        _type(content["schema"]) if kind.endswith("json") else _code(kind)
        for kind, content in answer.get("content", {}).items()
    )


def _access(security: Sequence[Document]) -> str:
    if not security:
        return "Open: no credential is needed."
    if "worker" in security[0]:
        return "Only for the worker that it concerns, with its own token."
    scopes = security[0]["bearer"]
    return f"Needs the scope {', '.join(map(_code, scopes))}." if scopes else "Needs a credential."


def _type(schema: Document) -> str:
    """Return a schema in a few words, named ones as links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(_code(json.dumps(value)) for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return f"list of {' and '.join(_type(item) for item in items)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_type(schema['additionalProperties'])}"
    limits = ", ".join(f"{escape(word)} {escape(_told(schema[word]))}" for word in _LIMITS if word in schema)
    return escape(str(kind)) + (f' <span class="dim">({limits})</span>' if limits else "")


_LIMITS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "format", "default")


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: Sequence[str], rows: Any) -> str:
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    # On a narrow screen each row is a small list, where the title stands before its cell.
    cells = ([f'<td data-title="{name}">{cell}</td>' for name, cell in zip(head, row, strict=True)] for row in rows)
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'
