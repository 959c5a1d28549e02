"""Installed agents: manifests under names, to be run again and again."""

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.manifest_reading import parse_manifest
from borough.governance.ports.folders import InstallFolders
from borough.governance.ports.register import AgentStore, InstalledAgent
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.preparing import check_available
from borough.governance.services.recording import Recorder


class AgentStoreService:
    """The use cases around installed agents. All raise ``Forbidden`` (``scope_missing``)."""

    def __init__(self, *, gate: Gate, store: AgentStore, folders: InstallFolders, recorder: Recorder) -> None:
        self._gate = gate
        self._store = store
        self._folders = folders
        self._recorder = recorder

    async def install(self, asker: Asker, manifest_yaml: str, *, folder: str | None) -> InstalledAgent:
        """Keep a manifest under its agent's name, over an older one, with a copy of it in the agent's folder.

        Raises:
            Invalid: it is no manifest; see ``parse_manifest``. Or ``folder`` is no folder (``install_folder``).
            Unavailable: it needs what there is not yet (``not_available``).
        """
        await self._gate.admit(asker, Verb.MANAGE_STORE)
        manifest = parse_manifest(manifest_yaml)
        check_available(manifest)
        detail = f"{manifest.name} {manifest.version}"
        async with self._recorder.act(asker, Action.STORE_INSTALL, detail=detail):
            installed = InstalledAgent(
                name=manifest.name,
                version=manifest.version,
                manifest_yaml=manifest_yaml,
                install_dir=await self._folders.prepare(manifest.name, folder=folder, manifest_yaml=manifest_yaml),
                installed_at=utc_now(),
            )
            await self._store.install(installed)
        return installed

    async def all(self, asker: Asker) -> tuple[InstalledAgent, ...]:
        """Return every installed agent, by name."""
        await self._gate.admit(asker, Verb.LIST)
        return await self._store.all()

    async def get(self, asker: Asker, name: str) -> InstalledAgent:
        """Return one; raises ``NotFound`` (``agent_not_installed``)."""
        await self._gate.admit(asker, Verb.LIST)
        return await self._found(name)

    async def remove(self, asker: Asker, name: str) -> None:
        """Forget one; those that run go on. Raises ``NotFound`` (``agent_not_installed``)."""
        await self._gate.admit(asker, Verb.MANAGE_STORE)
        installed = await self._found(name)
        async with self._recorder.act(asker, Action.STORE_REMOVE, detail=f"{name} {installed.version}"):
            await self._store.remove(name)
            await self._folders.discard(installed.install_dir, name)

    async def _found(self, name: str) -> InstalledAgent:
        try:
            return await self._store.get(name)
        except NotFound:
            raise NotFound(
                f"agent store: not found: {name}",
                code="agent_not_installed",
                resolution="see what is installed: ash agent list",
            ) from None
