"""A whole installation of governance in a folder: stores, services, both doors, and no process of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.types import ASGIApp

from borough.adapters.credentials.operator import operator_token
from borough.adapters.data_folder import prepare_data_folder
from borough.adapters.procfs import identify
from borough.bootstrap.governance import Governance, open_governance
from borough.config.governance import GovernanceSettings
from borough.core.ids import AgentId, new_id
from borough.daemon import application
from borough.governance.ports.ledger import EntryFilter
from borough.http.governance.about import ABOUT
from borough.http.governance.routes import OPERATIONS
from borough.http.pages import page_operations
from borough.ipc.dispatch import Dispatcher
from borough.ipc.identity import nonce_sha256
from borough.ipc.opening import open_socket
from borough.ipc.server import Listener, agents_only, operators_only
from tests.services.ipc_client import Client
from tests.surfaces.asgi import Got, ask

NONCE = "5a" * 32


def manifest(name: str, *capabilities: str, trust: str = "trusted", **spec: Any) -> str:
    """The text of a manifest; JSON is YAML too."""
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {"trust_level": trust, "capabilities": list(capabilities), **spec},
    }
    return json.dumps(document)


@dataclass(frozen=True, kw_only=True)
class Installation:
    governance: Governance
    settings: GovernanceSettings
    app: ASGIApp
    operator: str

    async def http(
        self,
        method: str,
        target: str,
        *,
        token: str | None = "",
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Got:
        """Send a request; ``token`` '' is the operator's, ``None`` none at all."""
        sent = dict(headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token or self.operator}"
        return await ask(self.app, method, target, json=json, headers=sent, **more)

    async def ok(self, method: str, target: str, **more: Any) -> Any:
        got = await self.http(method, target, **more)
        assert got.status < 300, (method, target, got.status, got.body)
        return got.json() if got.body else None

    async def spawn(self, text: str, *, token: str = "") -> AgentId:
        spawned = await self.ok("POST", "/agents", json={"manifest_yaml": text}, token=token)
        return AgentId(spawned["id"])

    async def key(self, agent_id: AgentId, name: str = "ci", **more: Any) -> str:
        made = await self.ok("POST", "/tokens", json={"name": name, "agent_id": agent_id, **more})
        return str(made["token"])

    async def as_operator(self) -> Client:
        return await Client.connect(self.settings.socket)

    async def as_agent(self, agent_id: AgentId) -> Client:
        """Connect as an agent whose process is this one."""
        run_id, me = new_id(), identify(os.getpid())
        assert me is not None
        nonce = f"{NONCE}{agent_id}"
        self.governance.runs.expect(agent_id, run_id, nonce_sha256=nonce_sha256(nonce))
        self.governance.runs.started(run_id, pid=me.pid, started_ticks=me.started_ticks)
        self.governance.runs.on_session(_no_course)
        client = await Client.connect(self.settings.agents_socket)
        assert await client.ask({"Hello": {"nonce": nonce}}) == "Ok"
        return client

    async def entries(self, *actions: str) -> list[dict[str, Any]]:
        """What the ledger tells, oldest first."""
        await self.governance.logins.flush(everything=True)
        found = await self.governance.stores.ledger.newest(EntryFilter(actions=frozenset(actions)), limit=10_000)
        return [msgspec.json.decode(entry.canonical) for entry in found]


async def _no_course(_agent_id: AgentId, _run_id: str) -> None:
    """The run is one that only the sockets know of."""


def settings_in(folder: Path, **more: Any) -> GovernanceSettings:
    given = {
        "host": "127.0.0.1",
        "port": 0,
        "socket": folder / "run" / "a.sock",
        "data_folder": folder / "data",
        "token_db": folder / "data" / "tokens.db",
        **more,
    }
    return GovernanceSettings(**given)


@asynccontextmanager
async def installed(folder: Path, **more: Any) -> AsyncIterator[Installation]:
    """Open an installation with both doors."""
    settings = settings_in(folder, **more)
    operator = operator_token(prepare_data_folder(settings.data_folder))
    async with AsyncExitStack() as undo:
        governance = await undo.enter_async_context(open_governance(settings))
        undo.push_async_callback(governance.end_agents)
        surface = governance.surface((*OPERATIONS, *page_operations(OPERATIONS, ABOUT)), operator=operator)
        dispatcher = Dispatcher(surface)
        doors = (
            (settings.socket, operators_only()),
            (settings.agents_socket, agents_only(governance.runs)),
        )
        for path, admit in doors:
            opened = open_socket(path)
            undo.callback(opened.close)
            listener = Listener(dispatcher, admit, on_refused=governance.refused_connection)
            await listener.start(opened.listening)
            undo.push_async_callback(listener.stop, drain_s=1)
        await governance.started("a test")
        yield Installation(
            governance=governance,
            settings=settings,
            app=application(settings, [surface], asyncio.Event()),
            operator=operator.reveal(),
        )
