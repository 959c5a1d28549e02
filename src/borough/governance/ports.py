"""What governance needs from outside. One method is one atomic step and says what it raises.

All raise ``Unavailable`` (code ``store_unavailable``) when what is behind them does not answer; methods that read may
then be repeated, and so may those that say they are idempotent. ``NotFound`` has the codes ``agent_not_found``,
``token_not_found`` and so on, after the thing that was named.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from borough.core.ids import AgentId
from borough.core.paging import Page, PageRequest
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval, ApprovalState
from borough.governance.budgets import Spent
from borough.governance.grants import Grant
from borough.governance.ledger import Draft, Head, Sealed
from borough.governance.lifecycle import Exit, Phase, Status
from borough.governance.manifests import Layer, Manifest
from borough.governance.memory import MemoryEntry
from borough.governance.observations import NewObservation, Observation, ObservationFilter
from borough.governance.secrets import SecretPolicy
from borough.governance.tokens import ApiToken, StreamTicket
from borough.governance.tools import Proposal, ProposalState, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries of the ledger; ``None`` or empty means any. Both ends of the time are included."""

    agents: frozenset[AgentId] | None = None
    """Entries of one of these agents, or made on behalf of one."""
    actions: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A signed note over the first ``size`` entries."""

    size: int
    at: datetime
    note: str


class Ledger(Protocol):
    """The one chain of entries. There is one writer; appends of many callers are written together."""

    async def append(self, drafts: Sequence[Draft]) -> tuple[Sealed, ...]:
        """Seal ``drafts`` one after the other, with nothing between them, and return when they are on disk.

        A draft whose id is there already is not written again; its entry is returned. Either all of them are in the
        ledger or, when this raises, none is acknowledged: the caller must not act then.

        Raises:
            Invalid: a draft cannot be sealed.
            Unavailable: the ledger cannot be written (``ledger_unavailable``).
        """

    async def head(self) -> Head:
        """Return where the ledger stands on disk."""

    async def get(self, seq: int) -> Sealed:
        """Return one entry; raises ``NotFound`` (``entry_not_found``), also for one that retention dropped."""

    async def newest(self, wanted: EntryFilter, *, limit: int) -> tuple[Sealed, ...]:
        """Return the newest ``limit`` wanted entries, oldest first."""

    async def find(self, wanted: EntryFilter, page: PageRequest) -> Page[Sealed]:
        """Return wanted entries in order; the position after an entry is its ``seq``."""

    async def open_intents(self) -> tuple[Sealed, ...]:
        """Return the intents that have no outcome, oldest first; for the start after a crash."""

    async def node(self, level: int, place: int) -> bytes:
        """Return the hash of a complete node of the tree; kept also where its entries were dropped."""

    async def checkpoint(self) -> SignedCheckpoint:
        """Return the newest checkpoint; raises ``NotFound`` (``checkpoint_not_found``) before the first."""

    async def sign_now(self) -> SignedCheckpoint:
        """Sign all that is on disk and return the checkpoint; the same one again when nothing was added."""

    def export(self, *, first_seq: int, size: int) -> AsyncIterator[bytes]:
        """Yield the lines of an export of the entries from ``first_seq`` to before ``size``, header included."""

    async def retain(self, *, before: datetime, limit: int) -> int:
        """Drop at most ``limit`` of the oldest entries from before ``before`` and return how many; the head that the
        first kept entry is bound to is carried over in the same step.
        """


class LedgerFeed(Protocol):
    """Entries as they are written, fanned out inside this process."""

    def subscribe(self, *, capacity: int = 1024) -> AbstractAsyncContextManager[AsyncIterator[Sealed]]:
        """Yield every entry from now on, once it is on disk. A reader that falls ``capacity`` behind is cut off: its
        iterator ends, and it reads on from the ledger.
        """


class Tokens(Protocol):
    """The gateway's tokens."""

    async def add(self, token: ApiToken) -> None:
        """Store a new token; raises ``Conflict`` (``token_exists``) when its name is taken."""

    async def by_digest(self, digest: str) -> ApiToken | None:
        """Return the token with this SHA-256, current or previous, revoked ones too."""

    async def get(self, name: str) -> ApiToken:
        """Return a token by its name; raises ``NotFound`` (``token_not_found``)."""

    async def all(self) -> tuple[ApiToken, ...]:
        """Return every token that was not revoked, oldest first."""

    async def replace(self, token: ApiToken) -> None:
        """Store a changed token over the one of its name; in force when this returns, for every reader."""

    async def used(self, name: str, *, at: datetime) -> None:
        """Note that a token was used; may be written together with later ones."""

    async def keep_ticket(self, ticket: StreamTicket) -> None:
        """Keep a stream ticket until it expires."""

    async def take_ticket(self, digest: str, *, at: datetime) -> StreamTicket | None:
        """Return a ticket and forget it; a second taker, or one too late, gets ``None``."""


class Agents(Protocol):
    """The register of governed agents."""

    async def add(self, agent: GovernedAgent, manifest: Manifest) -> None:
        """Register an agent before anything of it exists; idempotent by id and run id."""

    async def get(self, agent_id: AgentId) -> GovernedAgent:
        """Return an agent, also one that has ended and is still kept."""

    async def manifest(self, agent_id: AgentId) -> Manifest:
        """Return the manifest under which the agent runs."""

    async def all(self, *, ended: bool) -> tuple[GovernedAgent, ...]:
        """Return the agents that run (``ended``: also those that have ended), oldest first."""

    async def ancestors(self, agent_id: AgentId) -> tuple[AgentId, ...]:
        """Return the parent, its parent, and so on."""

    async def move(self, agent_id: AgentId, *, run_id: str, was: Phase, to: Phase, at: datetime) -> GovernedAgent:
        """Change the phase; raises ``Conflict`` (``stale_agent``) when run or phase are others by now."""

    async def set_status(
        self, agent_id: AgentId, *, run_id: str, was: Status, to: Status, ended: Exit | None, last_error: str | None
    ) -> GovernedAgent:
        """Change the status; raises ``Conflict`` (``stale_agent``) when run or status are others by now."""

    async def begin_run(self, agent_id: AgentId, *, run_id: str, at: datetime) -> GovernedAgent:
        """Start another run of an agent that has ended, under the same id, with restarts counted."""

    async def taint(self, agent_id: AgentId, *, tainted: bool) -> None:
        """Set or clear the taint."""

    async def charge(self, agent_id: AgentId, more: Spent) -> Spent:
        """Add to what the agent has used, and return the sum."""

    async def set_result(self, agent_id: AgentId, *, run_id: str, result: str) -> None:
        """Keep what the agent handed back (JSON text)."""

    async def forget(self, *, ended_before: datetime) -> tuple[AgentId, ...]:
        """Drop agents that ended before then, with their grants and approvals; their ledger entries stay."""


class Grants(Protocol):
    """Capabilities given for a time."""

    async def add(self, grant: Grant) -> None:
        """Store a grant; idempotent by id."""

    async def of(self, agent_id: AgentId) -> tuple[Grant, ...]:
        """Return an agent's grants that were not revoked, oldest first."""

    async def replace(self, grant: Grant) -> None:
        """Store a changed grant; raises ``NotFound`` (``grant_not_found``)."""


class Approvals(Protocol):
    """Requests for a human's agreement; they survive a restart."""

    async def add(self, approval: Approval) -> None:
        """Store a request; idempotent by id."""

    async def get(self, approval_id: str) -> Approval:
        """Return a request; raises ``NotFound`` (``approval_not_found``)."""

    async def waiting(self) -> tuple[Approval, ...]:
        """Return what waits for a decision, oldest first."""

    async def replace(self, approval: Approval, *, was: ApprovalState) -> None:
        """Store a changed request; raises ``Conflict`` (``stale_approval``) when its state is another by now."""

    async def decided(self, approval_id: str, *, timeout_s: float) -> Approval:
        """Return the request as soon as it is not pending, or as it is when the time is over."""


class Memory(Protocol):
    """What agents keep under keys, by their name; ``board`` names the shared blackboard's space."""

    async def read(self, namespace: str, key: str, *, at: datetime) -> MemoryEntry | None:
        """Return what is there and has not expired."""

    async def write(
        self,
        namespace: str,
        key: str,
        value: str,
        *,
        at: datetime,
        ttl_s: int | None,
        expected_version: int | None = None,
    ) -> MemoryEntry:
        """Write as ``memory.written`` says, in one step; raises what that raises, and ``Conflict``
        (``memory_full``).
        """

    async def delete(self, namespace: str, key: str, *, at: datetime, expected_version: int | None = None) -> bool:
        """Delete what is there and tell whether there was something; raises ``Conflict`` (``version_mismatch``)."""

    async def keys(self, namespace: str, *, at: datetime, page: PageRequest) -> Page[str]:
        """Return the keys that have not expired, in order."""

    async def sweep(self, *, at: datetime, limit: int) -> int:
        """Delete at most ``limit`` expired entries; return how many."""


class Observations(Protocol):
    """What agents say of themselves, one chain for each."""

    async def append(self, agent_id: AgentId, new: NewObservation, *, id: str, at: datetime) -> Observation:  # noqa: A002 - the field's name
        """Bind ``new`` to the agent's last observation and store it, in one step; idempotent by id."""

    async def find(self, agent_id: AgentId, wanted: ObservationFilter) -> tuple[Observation, ...]:
        """Return the newest wanted observations, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledAgent:
    """A manifest in the store of agents."""

    name: str
    version: str
    manifest_yaml: str = field(repr=False)
    install_dir: str
    installed_at: datetime


class AgentStore(Protocol):
    """Installed agents, one for each name."""

    async def install(self, agent: InstalledAgent) -> None:
        """Store an agent, over an older one of its name; running ones are not touched."""

    async def get(self, name: str) -> InstalledAgent:
        """Return one; raises ``NotFound`` (``agent_not_installed``)."""

    async def all(self) -> tuple[InstalledAgent, ...]:
        """Return every one, by name."""

    async def remove(self, name: str) -> None:
        """Forget one; raises ``NotFound`` (``agent_not_installed``). Running ones are not touched."""


class Secrets(Protocol):
    """Sealed values and the policies for their use. Values leave this only to be put into a call."""

    async def unlock(self, passphrase: bytes) -> int:
        """Open the store (or make it, the first time) and return how many secrets it holds.

        Raises:
            Forbidden: the passphrase is wrong (``wrong_passphrase``).
        """

    async def lock(self) -> None:
        """Close the store and forget every value and the key."""

    async def rekey(self, old: bytes, new: bytes) -> int:
        """Seal everything anew, all or nothing; raises ``Forbidden`` (``wrong_passphrase``)."""

    async def put(self, name: str, value: bytes, *, description: str | None) -> None:
        """Seal a value under ``name``; raises ``Unavailable`` (``store_locked``) while locked, as do the next two."""

    async def values(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return values by name; raises ``NotFound`` (``secret_not_found``)."""

    async def every_value(self) -> Mapping[str, str]:
        """Return all values, for keeping them out of what is shown."""

    async def names(self) -> tuple[str, ...]:
        """Return the names, locked or not."""

    async def remove(self, name: str) -> None:
        """Forget a secret; raises ``NotFound`` (``secret_not_found``)."""

    async def policies(self) -> tuple[SecretPolicy, ...]:
        """Return every policy, oldest first."""

    async def add_policy(self, policy: SecretPolicy) -> None:
        """Store a policy; idempotent by id."""

    async def remove_policy(self, policy_id: str) -> None:
        """Forget a policy; raises ``NotFound`` (``policy_not_found``)."""

    async def count_use(self, policy_id: str) -> SecretPolicy:
        """Count one more use in one step; raises ``Forbidden`` (``policy_exhausted``) when none was left."""


class Proposals(Protocol):
    """Tools that agents propose, and those that were agreed to."""

    async def add(self, proposal: Proposal) -> None:
        """Store a proposal; idempotent by id."""

    async def get(self, proposal_id: str) -> Proposal:
        """Return one; raises ``NotFound`` (``proposal_not_found``)."""

    async def all(self, *, state: ProposalState | None) -> tuple[Proposal, ...]:
        """Return proposals, oldest first."""

    async def replace(self, proposal: Proposal, *, was: ProposalState) -> None:
        """Store a decided proposal; raises ``Conflict`` (``already_decided``) when its state is another by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that everything has agreed to. Arguments hold the secrets' values here and nowhere else."""

    id: str
    agent_id: AgentId
    tool: str
    arguments: Mapping[str, object] = field(repr=False)
    timeout_s: float
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReply:
    """How a call went: ``success`` or ``error``, with what it gave and what it really cost."""

    status: str
    output: object
    cost_micros: int | None = None
    """``None``: what was estimated."""
    tokens: int = 0


class ToolProvider(Protocol):
    """Runs the tools of one source: built in, dynamic, or an MCP server's."""

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return what this offers to an agent."""

    async def call(self, call: ToolCall) -> ToolReply:
        """Make the call. Scopes that depend on a file or an address are enforced once more where it is opened.

        Raises:
            NotFound: there is no such tool (any more) (``tool_not_found``).
            Unavailable: it cannot be reached (``tool_unavailable``); whether it ran is not known.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What really holds for an agent on this host."""

    backend: str
    layers: Mapping[Layer, bool]
    reasons: Mapping[Layer, str]
    """Why a layer does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOrder:
    """What is needed to start an agent's process."""

    agent_id: AgentId
    run_id: str
    manifest: Manifest
    task: str | None
    model: str | None
    socket: str
    nonce: str = field(repr=False)
    """Proves to the socket that a connection is this run's; handed over in a file descriptor, never as an argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcess:
    """A process that runs, known so that it cannot be mistaken for another one later."""

    pid: int
    started_ticks: int
    """Its start time in clock ticks since boot (proc(5))."""
    enforcement: Enforcement


class AgentRunner(Protocol):
    """Starts agents' processes in their confinement, and ends them with everything that descends from them."""

    async def probe(self) -> Enforcement:
        """Return what this host can enforce."""

    async def start(self, order: AgentOrder) -> AgentProcess | None:
        """Start an agent; ``None`` when its manifest names nothing to start, and it lives in the register only.

        Raises:
            Unavailable: a required layer does not hold here (``enforcement_missing``), or the process could not be
                started (``start_failed``). Nothing is left behind then.
        """

    async def adopt(self, agent_id: AgentId, run_id: str) -> AgentProcess | None:
        """Return the run's process if it still runs, having proven that it is that one; for the start after a crash."""

    async def pause(self, agent_id: AgentId) -> None:
        """Stop every process of the agent where it is."""

    async def resume(self, agent_id: AgentId) -> None:
        """Let them go on."""

    async def end(self, agent_id: AgentId, *, grace: timedelta) -> Exit:
        """Tell the agent to end, end it by force after ``grace``, and return when nothing of it is left."""

    async def exited(self, agent_id: AgentId) -> Exit:
        """Return how the agent ended, as soon as it has."""

    async def logs(self, agent_id: AgentId, run_id: str, *, offset: int, limit: int) -> bytes:
        """Return a part of what the agent printed; raises ``NotFound`` (``log_not_found``)."""
