"""What governance reaches outside of the daemon: boxes, pages, models, MCP servers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import borough.agent
from borough.adapters.egress.boxes import BoxProxies
from borough.adapters.egress.judging import Judge
from borough.adapters.egress.verdicts import EgressVerdict
from borough.adapters.engines.bubblewrap.engine import Bubblewrap, build
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.mcp.pins import Pins
from borough.adapters.mcp.servers import McpReport, McpSessions
from borough.adapters.models.endpoint import ModelEndpoint, OpenAiModels
from borough.adapters.models.registry import read_registry
from borough.adapters.web import HttpWeb
from borough.adapters.workspaces.homes import Homes, HousedFiles, HousedSandbox
from borough.adapters.workspaces.machine_files import MachineFiles
from borough.adapters.workspaces.machine_sandbox import MachineSandbox
from borough.config.governance import GovernanceSettings
from borough.governance.models import BUILT_IN, Model
from borough.governance.ports.outside import Sandbox
from borough.governance.ports.workspaces import Files
from borough.governance.services.reports import Connection, ReportService

BOXES_FOLDER = "boxes"
AGENTS_FOLDER = "agents"
MOST_FILE_BYTES = 1 << 28
"""Of a file that is written into a machine by a tool."""
_ID_LETTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Everything that fills the ports to the outside."""

    engine: Bubblewrap
    homes: Homes
    """Which agents live in machines of the fleet."""
    files: Files
    sandbox: Sandbox
    web: HttpWeb
    models: OpenAiModels
    known_models: tuple[Model, ...]
    servers: McpSessions


@asynccontextmanager
async def open_outside(settings: GovernanceSettings, reports: ReportService, *, pins: Pins) -> AsyncIterator[Outside]:
    """Put it together, end what an earlier daemon left of it, and let go of it in the end.

    Raises:
        Invalid: the file of models cannot be read (``invalid_yaml``, ``invalid_registry``).
    """
    judge = Judge()

    async def on_verdict(verdict: EgressVerdict) -> None:
        made = Connection(
            host=verdict.host,
            port=verdict.port,
            allowed=verdict.allowed,
            reason=verdict.reason,
            connections=verdict.connections,
        )
        await reports.connection(verdict.agent_id, verdict.run_id, made)

    async def on_report(report: McpReport) -> None:
        await reports.server(report.agent_id, report.server, report.event, report.tools)

    async with AsyncExitStack() as undo:
        engine = build(_boxes(settings), network=BoxProxies(judge=judge, on_verdict=on_verdict))
        undo.push_async_callback(engine.close)
        known_models = BUILT_IN if settings.models_registry is None else read_registry(settings.models_registry)
        models = OpenAiModels(
            ModelEndpoint(
                base_url=settings.models_url, api_key=settings.models_key, timeout_s=settings.models_timeout_s
            ),
            registry=known_models,
        )
        undo.push_async_callback(models.close)
        servers = McpSessions(installation=_installation(settings.data_folder), on_report=on_report, pins=pins)
        await servers.reap()
        undo.push_async_callback(servers.close)
        homes = Homes(settings.data_folder)
        inside = MachineFiles(homes, largest_bytes=MOST_FILE_BYTES)
        yield Outside(
            engine=engine,
            homes=homes,
            files=HousedFiles(homes, at_home=engine.files, inside=inside),
            sandbox=HousedSandbox(homes, at_home=engine.sandbox, inside=MachineSandbox(homes)),
            web=HttpWeb(judge),
            models=models,
            known_models=known_models,
            servers=servers,
        )


def _boxes(settings: GovernanceSettings) -> BoxSettings:
    secret = (settings.data_folder, settings.socket, settings.token_db, *settings.hidden)
    return BoxSettings(
        state=settings.data_folder / BOXES_FOLDER,
        secret_places=tuple(str(path) for path in secret),
        sdk=Path(borough.agent.__file__).parent,
    )


def _installation(data_folder: Path) -> str:
    """Return a word for this installation: the same again for every daemon over its data folder."""
    return sha256(str(data_folder.resolve()).encode()).hexdigest()[:_ID_LETTERS]
