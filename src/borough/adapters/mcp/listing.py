"""What a server says of its tools, brought into our words; and what of it was agreed to before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from borough.core.errors import Invalid
from borough.governance.canonical import fingerprint
from borough.governance.tool_schemas import check_schema
from borough.governance.tools import ANY_OBJECT, MCP_PREFIX, Category, Source, Tool

if TYPE_CHECKING:
    from mcp.types import Tool as McpTool

MOST_TOOLS = 256
LONGEST_DESCRIPTION = 8_192
_LONGEST_NAME = 128
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A server's tools by its own names for them."""

    offered: Mapping[str, Tool]
    refused: Mapping[str, str]
    """Tools that cannot be used here, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What of a listing may be called, and what waits for a human's agreement."""

    usable: Mapping[str, Tool]
    withheld: Mapping[str, Tool]


def read_listing(server: str, tools: Iterable["McpTool"]) -> Listing:
    """Return the tools that a server lists as ours."""
    offered: dict[str, Tool] = {}
    refused: dict[str, str] = {}
    for tool in tools:
        name = tool.name
        try:
            if len(offered) >= MOST_TOOLS:
                raise _unusable(f"the server has more than {MOST_TOOLS} tools")
            if name in offered:
                raise _unusable("the server lists it twice")
            offered[name] = _tool(server, tool)
        except Invalid as error:
            refused[name[:_LONGEST_NAME]] = error.reason or error.message
    return Listing(offered=offered, refused=refused)


def settle(offered: Mapping[str, Tool], pins: Mapping[str, str] | None) -> Settled:
    """Return which tools are as they were agreed to; the first time, with no pins, all are."""
    fine = {name: tool for name, tool in offered.items() if pins is None or pins.get(name) == pin_of(tool)}
    return Settled(usable=fine, withheld={name: tool for name, tool in offered.items() if name not in fine})


def pin_of(tool: Tool) -> str:
    """Return the hash of all that a server said of a tool, also which way its data flows."""
    return fingerprint([tool.pin, tool.category.value])


def _tool(server: str, tool: "McpTool") -> Tool:
    name = f"{MCP_PREFIX}{server}.{tool.name}"
    parts = tool.name.split(".")
    if len(name) > _LONGEST_NAME or not all(part and set(part) <= _NAME_LETTERS for part in parts):
        raise _unusable("its name is too long, or has letters that no tool's name has")
    read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
    return Tool(
        name=name,
        description=(tool.description or tool.title or "")[:LONGEST_DESCRIPTION],
        category=Category.INPUT if read_only else Category.OUTPUT,
        input_schema=_schema(tool.input_schema),
        output_schema=_schema(tool.output_schema) if tool.output_schema else ANY_OBJECT,
        source=Source.MCP,
    )


def _schema(schema: Any) -> Mapping[str, object]:
    check_schema(schema)
    return dict(schema)


def _unusable(reason: str) -> Invalid:
    return Invalid("the tool cannot be used", code="invalid_tool", reason=reason, resolution="have the server mended")
