"""Tools and their results in the protocol's words."""

import re
from collections.abc import Iterable, Mapping

import orjson
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from mcp.types import Tool as McpTool

from borough.core.errors import BoroughError
from borough.governance.ports.tools import ToolReply
from borough.governance.tools import Category, Tool

_NOT_FOR_MODELS = re.compile(r"[^A-Za-z0-9_-]")


def wire_names(tools: Iterable[Tool]) -> dict[str, Tool]:
    """Return the tools by names that every model takes: letters, digits, ``_`` and ``-``; ``fs.read`` is ``fs_read``.

    Where that is another tool's name, a tool keeps the one it has.
    """
    listed = tuple(tools)
    taken = {tool.name for tool in listed}
    named: dict[str, Tool] = {}
    for tool in listed:
        plain = _NOT_FOR_MODELS.sub("_", tool.name)
        named[tool.name if plain in taken or plain in named else plain] = tool
    return named


def tool_on_the_wire(tool: Tool, name: str) -> McpTool:
    """Return ``tool`` as the protocol describes tools."""
    approval = " Waits for a human's approval." if tool.requires_approval else ""
    return McpTool(
        name=name,
        title=tool.name,
        description=f"{tool.description}{approval}",
        input_schema={"type": "object", **tool.input_schema},
        annotations=ToolAnnotations(
            read_only_hint=tool.category is Category.INPUT, open_world_hint=tool.category is not Category.INTERNAL
        ),
    )


def reply_result(reply: ToolReply) -> CallToolResult:
    """Return a call's reply: as text for models, and as it is for programs."""
    output = reply.output
    text = output if isinstance(output, str) else orjson.dumps(output, default=str).decode()
    structured = dict(output) if isinstance(output, Mapping) else None
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=structured, is_error=reply.status != "success"
    )


def error_result(error: BoroughError) -> CallToolResult:
    """Return why a call was refused or failed, so that the model can do better."""
    return CallToolResult(content=[TextContent(text=told(error))], is_error=True)


def told(error: BoroughError) -> str:
    """Return what went wrong, why, and what to do, a line each."""
    lines = [f"{error.message} ({error.code})"]
    if error.reason:
        lines.append(f"reason: {error.reason}")
    if error.resolution:
        lines.append(f"what to do: {error.resolution}")
    return "\n".join(lines)
