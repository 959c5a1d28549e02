"""From what a caller hands in to a manifest that may be run, or the reason why not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from borough.core.errors import Invalid, NotFound, Unavailable
from borough.core.ids import AgentId
from borough.governance.access import Standing, check_spawn_trust
from borough.governance.agents import GovernedAgent, check_child, child_budget
from borough.governance.budgets import NOTHING_SPENT, UNLIMITED, Limits, narrower
from borough.governance.documents import dump_document, load_document
from borough.governance.lifecycle import MOST_DEPTH, child_depth
from borough.governance.manifest_editing import (
    Document,
    check_host_paths,
    with_absolute_paths,
    with_capabilities,
    with_program,
)
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import Manifest, PlanMode
from borough.governance.ports.folders import InstallFolders
from borough.governance.ports.register import Agents, AgentStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnOrder:
    """What is to be started: a manifest, or the name of an installed agent."""

    manifest_yaml: str | None = field(default=None, repr=False)
    name: str | None = None
    task_override: str | None = None
    cap_override: tuple[str, ...] | None = None
    """Instead of the manifest's capabilities; a part of what the parent itself holds."""
    parent_id: AgentId | None = None
    """Under whom; ``None``: under the caller, if that is an agent that runs."""
    folder: str | None = None
    """The manifest's own folder: relative paths begin there."""
    budget: Limits = UNLIMITED
    """The most that it may use, where that is less than its manifest gives it."""
    elsewhere: bool = False
    """Whether its program is none of this daemon's: it runs in a machine, and the agent lives in the register only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What may be run."""

    manifest: Manifest
    text: str = field(repr=False)
    digest: str
    task: str | None
    parent: GovernedAgent | None
    depth: int
    budget: Limits


class Preparer:
    """Reads manifests and holds them against what the caller and the parent may have started."""

    def __init__(
        self, agents: Agents, store: AgentStore, folders: InstallFolders, *, most_depth: int = MOST_DEPTH
    ) -> None:
        self._agents = agents
        self._store = store
        self._folders = folders
        self._most_depth = most_depth

    async def prepare(self, order: SpawnOrder, *, standing: Standing, parent: GovernedAgent | None) -> Prepared:
        """Return what ``order`` says, checked.

        Raises:
            Invalid: it names no manifest or two (``invalid_request``), or the manifest is none; see
                ``parse_manifest``.
            NotFound: no agent of that name is installed (``agent_not_installed``).
            Forbidden: caller or parent may not have it started: ``over_ceiling``, ``capability_escalation_denied``,
                ``network_escalation_denied``, ``workspace_escalation_denied``, ``hierarchy_depth_exceeded``.
            Unavailable: it needs what there is not yet (``not_available``).
        """
        text = await self._text(order)
        manifest = parse_manifest(text)
        check_available(manifest)
        check_spawn_trust(standing, manifest.trust_level)
        depth = child_depth(None if parent is None else parent.depth, most=self._most_depth)
        if parent is not None:
            above = await self._agents.manifest(parent.id)
            check_child(manifest, above)
            check_host_paths(manifest, above, installed=order.name is not None)
        given = manifest.budget if parent is None else child_budget(manifest, parent)
        return Prepared(
            manifest=manifest,
            text=text,
            digest=sha256(text.encode()).hexdigest(),
            task=manifest.task if order.task_override is None else order.task_override,
            parent=parent,
            depth=depth,
            budget=narrower(given, order.budget, NOTHING_SPENT),
        )

    async def _text(self, order: SpawnOrder) -> str:
        if (order.manifest_yaml is None) == (order.name is None):
            raise Invalid(
                "invalid request",
                code="invalid_request",
                reason="it takes either manifest_yaml or the name of an installed agent",
                resolution="send one of the two",
            )
        if order.manifest_yaml is not None:
            text, folder, program = order.manifest_yaml, order.folder, None
        else:
            text, folder, program = await self._installed(str(order.name))
        base = parse_manifest(text).workspace.base  # first, so that problems are told of what was written
        if base is None and (folder, program, order.cap_override) == (None, None, None):
            return text
        return _edited(text, folder=folder, program=program, capabilities=order.cap_override)

    async def _installed(self, name: str) -> tuple[str, str, str | None]:
        try:
            installed = await self._store.get(name)
        except NotFound:
            raise NotFound(
                f"agent store: not found: {name}",
                code="agent_not_installed",
                resolution="see what is installed: ash agent list",
            ) from None
        program = await self._folders.program(installed.install_dir, name)
        return installed.manifest_yaml, installed.install_dir, program


def check_available(manifest: Manifest) -> None:
    """Let a manifest pass that asks for nothing that does not exist yet.

    Raises:
        Unavailable: it does (``not_available``).
    """
    if manifest.plan_mode is PlanMode.STRICT:
        raise Unavailable(
            "plans that bind are not available yet",
            code="not_available",
            reason="spec.plan.mode is strict",
            resolution="write spec.plan.mode: advisory, and limit the agent by its capabilities and rules",
        )


def _edited(text: str, *, folder: str | None, program: str | None, capabilities: Sequence[str] | None) -> str:
    """Return ``text`` as it will be run; the very same where there is nothing to change."""
    document = load_document(text)
    if not isinstance(document, dict):
        return text
    edited: Document = with_absolute_paths(document, folder)
    spec = edited.get("spec")
    if program is not None and isinstance(spec, dict) and not spec.get("command") and not spec.get("entrypoint"):
        edited = with_program(edited, program)
    if capabilities is not None:
        edited = with_capabilities(edited, capabilities)
    return text if edited == document else dump_document(edited)
