"""What the gateway's document says of itself."""

from borough.http.governance.dialect import TOLD, ErrorBody
from borough.http.governance.routes import OPERATIONS
from borough.http.openapi.documents import Document
from borough.http.openapi.wire import Wire
from borough.http.pages import About, describe

WIRE = Wire(
    error=ErrorBody,
    error_type="application/json",
    told=TOLD,
    security={
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the gateway (64 hex characters), or the operator's own credential.",
        }
    },
    public_pages=True,
    keeps_answers=False,
)

ABOUT = About(
    title="Borough: governance",
    description="Agents with an identity, narrow powers, and a record that cannot be bent.",
    tags={
        "public": "What anybody may ask: is it alive, and what is there to ask.",
        "daemon": "The daemon as a whole.",
        "agents": "Who runs: started, steered, ended.",
        "store": "Agents that are installed, to be run by their name.",
        "workspaces": "The files of agents, and their past.",
        "escalations": "What agents ask of those above them.",
        "tools": "What agents may call, and calls of it.",
        "approvals": "What waits for a human, and what was decided.",
        "grants": "Capabilities given for a time, asked for, taken back.",
        "mcp": "Servers of the Model Context Protocol, and who is attached to them.",
        "policy": "What would be decided.",
        "audit": "The ledger: read, proven, exported.",
        "events": "The ledger as it is written.",
        "memory": "What agents keep.",
        "observations": "What agents say of themselves.",
        "blackboard": "What agents share.",
        "bus": "What agents tell each other.",
        "secrets": "Sealed values, and the policies for their use.",
        "tokens": "Keys of the gateway.",
    },
    path_parameters={"id": "An id, a UUID.", "name": "A name.", "key": "A key; it may hold slashes."},
    wire=WIRE,
)


def gateway_document() -> Document:
    """Return the document of everything that ``agentd`` serves."""
    return describe(OPERATIONS, ABOUT)
