"""The tools that every installation has: schemas, costs, categories."""

from collections.abc import Mapping
from types import MappingProxyType

from borough.governance.tools import ANY_OBJECT, Category, Schema, Tool

_TENTH = 100_000
"""A tenth of a cost unit, in millionths."""

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_COST: Schema = {"type": "number", "minimum": 0}
_PATH: Schema = {"type": "string", "minLength": 1, "maxLength": 4096, "description": "absolute path"}
_USAGE = {"model": _TEXT, "input_tokens": _COUNT, "output_tokens": _COUNT, "cost": _COST}


def _object(properties: Mapping[str, object], required: str = "") -> Schema:
    schema: dict[str, object] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        schema["required"] = required.split()
    return schema


def _result(properties: Mapping[str, object]) -> Schema:
    return {"type": "object", "properties": dict(properties)}


_TOOLS = (
    Tool(name="echo", description="Returns its input.", estimated_cost_micros=_TENTH),
    Tool(
        name="agent.info",
        description="Tells the calling agent who it is.",
        input_schema=_object({}),
        output_schema=_result({"id": _TEXT, "name": _TEXT, "trust_level": _TEXT, "lifecycle_state": _TEXT}),
        estimated_cost_micros=_TENTH,
    ),
    Tool(
        name="lm.complete",
        description="Completes a prompt with a language model.",
        input_schema=_object({"prompt": _TEXT, "system": _TEXT, "model": _TEXT}, "prompt"),
        output_schema=_result({"text": _TEXT, **_USAGE}),
    ),
    Tool(
        name="lm.chat",
        description="Continues a conversation with a language model, which may call functions.",
        input_schema=_object(
            {
                "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                "model": _TEXT,
                "tools": {"type": "array", "items": {"type": "object"}},
                "tool_choice": _TEXT,
            },
            "messages",
        ),
        output_schema=_result({"finish_reason": _TEXT, "text": _TEXT, "tool_calls": {"type": "array"}, **_USAGE}),
    ),
    Tool(
        name="lm.embed",
        description="Turns text into vectors.",
        input_schema=_object(
            {"input": {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}, "model": _TEXT}, "input"
        ),
        output_schema=_result({"embeddings": {"type": "array"}, "model": _TEXT, "input_tokens": _COUNT, "cost": _COST}),
    ),
    Tool(
        name="fs.read",
        description="Reads a file of the workspace.",
        input_schema=_object({"path": _PATH, "encoding": {"enum": ["utf-8", "base64"]}}, "path"),
        output_schema=_result({"content": _TEXT, "size": _COUNT, "mime": _TEXT, "truncated": {"type": "boolean"}}),
        estimated_cost_micros=_TENTH,
    ),
    Tool(
        name="fs.write",
        description="Writes a file of the workspace; makes the folders above it.",
        input_schema=_object({"path": _PATH, "content": _TEXT, "append": {"type": "boolean"}}, "path content"),
        output_schema=_result({"written": _COUNT}),
        estimated_cost_micros=2 * _TENTH,
    ),
    Tool(
        name="fs.list",
        description="Lists a folder of the workspace.",
        input_schema=_object({"path": _PATH, "glob": _TEXT}, "path"),
        output_schema={"type": "array", "items": {"type": "object"}},
        estimated_cost_micros=_TENTH,
    ),
    Tool(
        name="fs.delete",
        description="Deletes a file of the workspace; a missing one is no error.",
        input_schema=_object({"path": _PATH}, "path"),
        output_schema=_result({"deleted": {"type": "boolean"}}),
        estimated_cost_micros=_TENTH,
    ),
    Tool(
        name="web.fetch",
        description="Fetches a page with GET.",
        category=Category.INPUT,
        input_schema=_object(
            {
                "url": {"type": "string", "maxLength": 8192},
                "headers": {"type": "object", "additionalProperties": _TEXT},
            },
            "url",
        ),
        output_schema=_result({"status": _COUNT, "body": _TEXT, "truncated": {"type": "boolean"}}),
        estimated_cost_micros=_TENTH,
    ),
    Tool(
        name="web.search",
        description="Searches the web.",
        category=Category.INPUT,
        input_schema=_object({"query": {"type": "string", "minLength": 1, "maxLength": 1000}}, "query"),
        output_schema=_result({"results": {"type": "array", "items": {"type": "object"}}}),
        estimated_cost_micros=5 * _TENTH,
    ),
    Tool(
        name="sandbox.exec",
        description="Runs code in a sandbox of its own.",
        input_schema=_object(
            {
                "runtime": {"enum": ["sh", "python3", "node"]},
                "code": _TEXT,
                "stdin": _TEXT,
                "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 600_000, "default": 5000},
                "secrets": {"type": "object", "additionalProperties": _TEXT},
            },
            "runtime code",
        ),
        output_schema=_result({"stdout": _TEXT, "stderr": _TEXT, "exit_code": {"type": "integer"}}),
        estimated_cost_micros=10 * _TENTH,
    ),
    Tool(
        name="sensitive-op",
        description="Returns its input once a human has agreed to the call.",
        category=Category.OUTPUT,
        input_schema=ANY_OBJECT,
        estimated_cost_micros=50 * _TENTH,
        requires_approval=True,
    ),
)

BUILTIN_TOOLS: Mapping[str, Tool] = MappingProxyType({tool.name: tool for tool in _TOOLS})
