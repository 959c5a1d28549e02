"""What runs need from outside, beyond the services of town, fleet and governance. One method is one atomic step."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from borough.core.events import Event
from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.fleet.engines import Engine, Offer
from borough.fleet.environments import EnvState
from borough.fleet.orders import EnvOrder, Ids
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.ports.engines import Chunk, ExecOrder
from borough.fleet.vms import Action, Vm, VmId
from borough.runs.patches import Tree
from borough.runs.runs import Run
from borough.runs.states import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; nothing means any."""

    state: RunState | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class RunStore(Protocol):
    """Runs, each change with the event that tells of it in the same step.

    All raise ``Unavailable`` (``store_unavailable``) when nothing can be read or written, and those that name a run
    ``NotFound`` (``run_not_found``).
    """

    async def add(self, run: Run) -> Run:
        """Write a new run; one of that id that is there already is returned as it is."""

    async def get(self, run_id: str) -> Run:
        """Return one, by its id or by the beginning of it that no other has.

        Raises:
            Conflict: more than one begins so (``run_ambiguous``).
        """

    async def of_agent(self, agent_id: str) -> Run | None:
        """Return the newest run that acts in the name of a governed agent."""

    async def find(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """Return runs, newest first."""

    async def unsettled(self) -> tuple[Run, ...]:
        """Return the runs that are not over, or of which something is left to be cleared away, oldest first."""

    async def change(self, run: Run, *, event: str, message: str) -> Run:
        """Write a changed run and the event of it; returns it with its new revision.

        Raises:
            Conflict: it changed since it was read (``stale_run``).
        """

    async def comes(self, run_id: str, *, revision: int) -> None:
        """Return as soon as a run is not at ``revision`` any more."""

    async def forget(self, *, ended_before: datetime, limit: int) -> tuple[str, ...]:
        """Drop at most ``limit`` runs of which nothing is left and that ended before then; return their ids."""

    async def events(self, *, after: str, limit: int) -> tuple[Event, ...]:
        """Return what happened after an event ('' is before the first), oldest first."""

    async def event_bounds(self) -> tuple[str, str]:
        """Return the ids before the first event that is kept and of the newest."""

    async def event_comes(self, *, after: str) -> None:
        """Return as soon as there is an event after that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An environment as its fleet tells of it."""

    state: EnvState
    vms: tuple[Vm, ...]
    warnings: tuple[str, ...] = ()
    operation: str | None = None
    """The one that makes it, where that is known."""


Reserved = Callable[[Made], Awaitable[None]]
"""Hears of an environment whose place is written down."""


class House(Protocol):
    """A fleet, in this process or elsewhere. All raise what the fleet's services raise, and ``Unavailable``
    (``fleet_unreachable``) where it does not answer: whether it was done is unknown then, and it may be asked again.
    """

    async def preview(self, order: EnvOrder) -> Plan | NotPlaced:
        """Return where machines would go, or why not and where later; nothing is kept."""

    async def offers(self, engine: Engine) -> Sequence[Offer]:
        """Return what each host that has an engine can do with it."""

    async def digests(self, image: str) -> Mapping[str, str]:
        """Return for each host the digest of an image as it is there."""

    async def make(self, order: EnvOrder, ids: Ids, *, reserved: Reserved) -> Made:
        """Make an environment and return what could be made; a fleet elsewhere chooses the ids of machines itself.

        ``reserved`` hears which places its machines have, or what it waits for, as soon as the fleet says so: here
        that is before they are made.

        Raises:
            Conflict: there is one of that id (``env_exists``).
        """

    async def detail(self, env_id: str) -> Made:
        """Return an environment; raises ``NotFound`` (``env_not_found``)."""

    async def settles(self, operation_id: str, *, timeout_s: float) -> None:
        """Return when an operation is over, or the time is; one that is not known is over."""

    async def machine(self, vm_id: VmId) -> Vm:
        """Return a machine; raises ``NotFound`` (``vm_not_found``)."""

    async def act(self, vm_id: VmId, action: Action) -> Vm:
        """Start or pause a machine; raises ``Conflict`` where it cannot be."""

    async def delete(self, env_id: str, *, operation_id: str, waits: bool) -> None:
        """Have an environment deleted: ``waits`` until its hosts have confirmed, else until that is written down."""

    async def change(
        self, env_id: str, *, lifetime_s: int, owner: str | None = None, labels: Mapping[str, str] | None = None
    ) -> None:
        """Let an environment live for so long from now, and be another owner's; raises as the fleet's services."""

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file inside, or a folder as a tar archive."""

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file inside, or unpack a tar archive into a folder; return how many bytes came."""


class Homes(Protocol):
    """Which agents' tools work in which machines."""

    async def bind(self, agent_id: AgentId, vm_id: VmId) -> None:
        """Let an agent's tools work in a machine from now on, on disk when this returns; again changes the machine."""

    async def unbind(self, agent_id: AgentId) -> None:
        """Let an agent's tools work in no machine any more; one that was bound to nothing is no error."""


class RunFiles(Protocol):
    """What is kept of a run beside its row: its source, its log, its patch. All of it is bounded.

    All raise ``Unavailable`` (``disk_failed``) when the disk refuses.
    """

    async def keep_source(self, run_id: str, content: AsyncIterator[bytes]) -> int:
        """Keep the tar archive that a run begins with, whole or not at all; return its size.

        Raises:
            Invalid: it is too large (``source_too_large``) or no archive (``not_a_tar``).
        """

    async def keep_folder(self, run_id: str, path: str) -> int:
        """Keep a folder of this machine as what a run begins with.

        Raises:
            Invalid: there is no such folder (``source_not_found``), or it is too large (``source_too_large``).
        """

    def source(self, run_id: str) -> AsyncIterator[bytes]:
        """Yield the archive that a run begins with; nothing where there is none."""

    async def keep_before(self, run_id: str, content: AsyncIterator[bytes]) -> None:
        """Keep the archive of the workspace as the command finds it; of an earlier attempt it is replaced."""

    async def keep_after(self, run_id: str, content: AsyncIterator[bytes]) -> None:
        """Keep the archive of the workspace as the command left it; raises ``Invalid`` (``result_too_large``)."""

    async def differing(self, run_id: str) -> tuple[Tree, Tree]:
        """Return the files before and after, those that are the same left out."""

    async def keep_patch(self, run_id: str, text: str) -> int:
        """Keep the patch; return its size in bytes."""

    async def patch(self, run_id: str) -> bytes:
        """Return the patch; empty where there is none."""

    async def append_log(self, run_id: str, attempt: int, data: bytes) -> int:
        """Add to the log of an attempt; return its size. Beyond what is kept it is only counted as cut."""

    async def log_size(self, run_id: str, attempt: int) -> int:
        """Return how long the log of an attempt is."""

    async def read_log(self, run_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """Return a part of the log of an attempt."""

    async def forget(self, run_id: str) -> None:
        """Remove everything of a run."""
