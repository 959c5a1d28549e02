"""All messages in one table."""

from collections.abc import Mapping

from borough.ipc.rows import Variant, bare, one, row, wrapped
from borough.ipc.variants.agents import AGENTS
from borough.ipc.variants.permissions import PERMISSIONS
from borough.ipc.variants.records import RECORDS
from borough.ipc.variants.secrets import SECRETS
from borough.ipc.variants.tools import TOOLS

_DAEMON: Mapping[str, Variant] = {
    "Ping": one(row("GET", "/health"), bare("Pong")),
    "Status": one(row("GET", "/status"), wrapped("Status")),
}

VARIANTS: Mapping[str, Variant] = {**_DAEMON, **AGENTS, **TOOLS, **PERMISSIONS, **RECORDS, **SECRETS}
