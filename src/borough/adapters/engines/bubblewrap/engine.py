"""The whole engine, put together: what fills the ports for agents' processes, code, files and workspaces."""

from dataclasses import dataclass

from borough.adapters.engines.bubblewrap import skeleton
from borough.adapters.engines.bubblewrap.keeping import KeeperClient
from borough.adapters.engines.bubblewrap.making import BoxMaker
from borough.adapters.engines.bubblewrap.probing import Prober
from borough.adapters.engines.bubblewrap.runner import BubblewrapRunner
from borough.adapters.engines.bubblewrap.sandbox import BubblewrapSandbox
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.engines.bubblewrap.watching import Watch
from borough.adapters.workspaces.files import WorkspaceFiles
from borough.adapters.workspaces.layout import Layout
from borough.adapters.workspaces.mounting import Mounts
from borough.adapters.workspaces.workspaces import DiskWorkspaces
from borough.governance.ports.confinement import BoxNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubblewrap:
    """Everything that runs agents on this machine. ``close`` it before its event loop ends; the agents run on."""

    runner: BubblewrapRunner
    sandbox: BubblewrapSandbox
    files: WorkspaceFiles
    workspaces: DiskWorkspaces
    keeper: KeeperClient

    async def close(self) -> None:
        """Let go."""
        await self.runner.close()
        self.keeper.close()


def build(settings: BoxSettings, *, network: BoxNetwork | None = None) -> Bubblewrap:
    """Put the engine together. Nothing is started before it is needed."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = settings.state / "skeleton"
    skeleton.write(files)
    layout = Layout(settings.state / "workspaces")
    keeper = KeeperClient(state=settings.state, sdk=settings.sdk, skeleton=files)
    maker = BoxMaker(settings, keeper)
    mounts = Mounts(layout, keeper)
    prober = Prober(maker, has_proxy=network is not None)
    watch = Watch(layout, settings.limits)
    return Bubblewrap(
        runner=BubblewrapRunner(maker, mounts, prober, network=network, watch=watch),
        sandbox=BubblewrapSandbox(maker, mounts, prober, network=network, watch=watch),
        files=WorkspaceFiles(layout, mounts, hidden=settings.hidden, limits=settings.limits.file_bytes),
        workspaces=DiskWorkspaces(
            layout, mounts, keeper=keeper, secret=settings.hidden, largest_bytes=settings.limits.workspace_bytes
        ),
        keeper=keeper,
    )
