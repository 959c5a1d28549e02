"""MCP servers: their definitions (``/mcp-servers``) and their sessions with agents (``/agents/{id}/mcp``)."""

from typing import Literal

from msgspec import Struct, field

from borough.governance.manifests import McpServer, Transport
from borough.governance.services.attachments import Attached
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker
from borough.http.operations import Access, Answer, Call, Operation


class ServerBody(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    transport: Literal["stdio", "http", "Stdio", "Http"]
    command: str | None = None
    args: list[str] = field(default_factory=list)
    url: str | None = None
    env_template: list[tuple[str, str]] = field(default_factory=list)
    """Names and values; a value may hold ``{{secret:name}}``."""
    description: str | None = None


class ServerView(Struct, kw_only=True):
    name: str
    transport: str
    command: str | None
    args: list[str]
    url: str | None
    env: list[str]
    """The names only: values are never shown."""
    description: str | None


class AttachBody(Struct, kw_only=True, forbid_unknown_fields=True):
    accept_changes: bool = False
    """For operators: agree to tools that say of themselves something else than before."""


class AttachedView(Struct, kw_only=True):
    server: str
    tools: list[str]
    withheld: list[str]
    """Tools that changed since they were agreed to."""


class DetachedView(Struct, kw_only=True):
    server: str
    removed: list[str]


def shown(server: McpServer) -> ServerView:
    """Return a definition as it is shown."""
    return ServerView(
        name=server.name,
        transport=server.transport.value,
        command=server.command,
        args=list(server.args),
        url=server.url,
        env=[name for name, _ in server.env_template],
        description=server.description,
    )


def _attached(attached: Attached) -> AttachedView:
    return AttachedView(
        server=attached.server,
        tools=[tool.name for tool in attached.tools],
        withheld=list(attached.withheld),
    )


async def listing(call: Call) -> object:
    return [shown(server) for server in await call.state.tooling.attachments.all(asker(call))]


async def add(call: Call) -> object:
    body: ServerBody = call.body
    server = McpServer(
        name=body.name,
        transport=Transport(body.transport.lower()),
        command=body.command,
        args=tuple(body.args),
        url=body.url,
        env_template=tuple(body.env_template),
        description=body.description,
    )
    return shown(await call.state.tooling.attachments.add(asker(call), server))


async def remove(call: Call) -> None:
    await call.state.tooling.attachments.remove(asker(call), call.path["name"])


async def attached(call: Call) -> object:
    return [_attached(each) for each in await call.state.tooling.attachments.attached(asker(call), agent_id(call))]


async def attach(call: Call) -> object:
    made = await call.state.tooling.attachments.attach(
        asker(call), agent_id(call), call.path["name"], accept_changes=call.body.accept_changes
    )
    return _attached(made)


async def detach(call: Call) -> object:
    gone = await call.state.tooling.attachments.detach(asker(call), agent_id(call), call.path["name"])
    return DetachedView(server=call.path["name"], removed=list(gone))


OPERATIONS = (
    Operation(
        method="GET",
        path="/mcp-servers",
        handler=listing,
        access=Access.CALLER,
        summary="MCP servers that can be attached to agents",
        tag="mcp",
        answers=(Answer(status=200, body=list[ServerView], description="by name"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/mcp-servers",
        handler=add,
        access=Access.CALLER,
        summary="Define an MCP server",
        tag="mcp",
        body=ServerBody,
        answers=(Answer(status=201, body=ServerView, description="the definition"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "invalid_mcp_server": 422, "mcp_exists": 409},
    ),
    Operation(
        method="DELETE",
        path="/mcp-servers/{name}",
        handler=remove,
        access=Access.CALLER,
        summary="Forget a definition; sessions go on",
        tag="mcp",
        answers=(Answer(status=204, body=None, description="it is gone"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "mcp_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/agents/{id}/mcp",
        handler=attached,
        access=Access.CALLER,
        summary="The servers that are attached to an agent",
        tag="mcp",
        answers=(Answer(status=200, body=list[AttachedView], description="each with its tools"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="PUT",
        path="/agents/{id}/mcp/{name}",
        handler=attach,
        access=Access.CALLER,
        summary="Attach a server to an agent",
        tag="mcp",
        body=AttachBody,
        body_optional=True,
        streaming=True,
        answers=(Answer(status=200, body=AttachedView, description="the tools that came"),),
        errors={
            **AGENT_ERRORS,
            **LEDGER_ERRORS,
            "mcp_not_found": 404,
            "secret_not_found": 404,
            "no_matching_policy": 403,
            "policy_expired": 403,
            "policy_exhausted": 403,
            "store_locked": 423,
            "mcp_unavailable": 503,
        },
    ),
    Operation(
        method="DELETE",
        path="/agents/{id}/mcp/{name}",
        handler=detach,
        access=Access.CALLER,
        summary="Detach a server from an agent",
        tag="mcp",
        answers=(Answer(status=200, body=DetachedView, description="the tools that went"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "mcp_not_attached": 404},
    ),
)
