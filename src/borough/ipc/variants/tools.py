"""Messages about tools: calls, proposals of new ones, and MCP servers."""

from collections.abc import Mapping

import msgspec

from borough.http.answers import Rendered
from borough.ipc.refusals import told_as_result
from borough.ipc.rows import AGENT, Variant, content, ok, one, row, same, wrapped


def _tool_result(rendered: Rendered) -> object:
    """Answer a call of a tool; one that waits for a human, and was not to be waited for, says so."""
    if rendered.status == 202:  # noqa: PLR2004 - Accepted
        return {"RequiresApproval": msgspec.Raw(rendered.body)}
    return {"ToolResult": content(rendered)}


TOOLS: Mapping[str, Variant] = {
    "ToolList": Variant(
        rows=(row("GET", "/agents/{id}/tools", parameters=AGENT), row("GET", "/tools")),
        answer=wrapped("Tools", "tools"),
    ),
    "ToolSchema": one(
        row("GET", "/tools/{name}", parameters={"name": "tool_name"}, query=same("agent_id")), wrapped("Tool")
    ),
    "ToolInvoke": one(
        row("POST", "/agents/{id}/tools/{name}", parameters={"id": "agent_id", "name": "tool_name"}, whole="input"),
        _tool_result,
        refusal=told_as_result,
    ),
    "ToolInvokeAsync": one(
        row(
            "POST",
            "/agents/{id}/tools/{name}",
            parameters={"id": "agent_id", "name": "tool_name"},
            whole="input",
            headers={"prefer": lambda _fields: "respond-async"},
        ),
        _tool_result,
        refusal=told_as_result,
    ),
    "ToolPropose": one(row("POST", "/tool-proposals", body=same("agent_id", "tool", "impl")), wrapped("Proposed")),
    "ToolProposals": one(row("GET", "/tool-proposals", query=same("state")), wrapped("Proposals", "proposals")),
    "ToolApprove": one(
        row("POST", "/tool-proposals/{proposal_id}/approve", parameters=same("proposal_id"), body=same("everywhere")),
        wrapped("Proposal"),
    ),
    "ToolDeny": one(
        row("POST", "/tool-proposals/{proposal_id}/deny", parameters=same("proposal_id")), wrapped("Proposal")
    ),
    "ToolProposal": one(
        row("GET", "/tool-proposals/{proposal_id}", parameters=same("proposal_id")), wrapped("Proposal")
    ),
    "McpAdd": one(
        row(
            "POST",
            "/mcp-servers",
            body=same("name", "transport", "command", "args", "url", "env_template", "description"),
        ),
        wrapped("McpServer"),
    ),
    "McpList": one(row("GET", "/mcp-servers"), wrapped("McpServers", "servers")),
    "McpRemove": one(row("DELETE", "/mcp-servers/{name}", parameters=same("name")), ok),
    "McpAttach": one(
        row(
            "PUT",
            "/agents/{id}/mcp/{name}",
            parameters={"id": "agent_id", "name": "name"},
            body=same("accept_changes"),
        ),
        wrapped("McpAttached"),
        unused=frozenset({"operator_token"}),
    ),
    "McpDetach": one(
        row("DELETE", "/agents/{id}/mcp/{name}", parameters={"id": "agent_id", "name": "name"}), wrapped("McpDetached")
    ),
    "McpAttached": one(row("GET", "/agents/{id}/mcp", parameters=AGENT), wrapped("McpServers", "servers")),
}
