"""Both doors do the same: what a token asks over HTTP and what a socket asks, decision for decision, entry for entry.

Two installations get the same requests in the same order, one over HTTP and one over its sockets. Whatever is told
and recorded must be equal, but for the ids, the times, and the names of the doors.
"""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from borough.core.ids import AgentId
from borough.http.governance.routes import OPERATIONS
from borough.http.operations import Access
from borough.ipc.rows import Filled
from borough.ipc.variants.table import VARIANTS
from tests.services.ipc_client import Client
from tests.surfaces.installation import Installation, installed, manifest

pytestmark = pytest.mark.anyio

ROWS = {(row.method, row.path): row for row in OPERATIONS}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
OF_THE_DOOR = {"id", "timestamp", "prev_hash", "hash", "prev_leaf", "seq", "via", "request_id", "trace_id"}
OF_THE_MOMENT = re.compile(
    r".*(_ms|_at|_secs|timestamp|hash|cursor|published_at|etag)\Z|head|checkpoint|key|note|token|root|leaf"
)
RICH = (
    *("tool.invoke:*", "fs.read:/workspace/**", "fs.write:/workspace/**", "memory.read:**", "memory.write:**"),
    *("obs.append", "obs.query", "bb.read", "bb.write", "bus.publish", "bus.subscribe", "agent.spawn"),
    *("agent.discover", "agent.grant", "agent.terminate", "audit.read", "tool.propose", "workspace.snapshot"),
    *("workspace.diff", "workspace.rollback", "workspace.commit"),
)
POOR = ("tool.invoke:echo",)
CHILD = manifest("child", "tool.invoke:echo")
TOOL = {
    "tool": {"name": "twice", "description": "says it twice"},
    "impl": {"kind": "sandbox", "runtime": "sh", "code": "cat"},
}
POLICY = {"label": "ci", "secret_pattern": "ci-*", "tool_pattern": "web.fetch"}
SERVER = {"name": "files", "transport": "stdio", "command": "/bin/false", "args": []}

OPERATORS_OWN = {
    *(
        "AgentStoreInstall",
        "AgentStoreRemove",
        "ApproveRequest",
        "DenyRequest",
        "EndorseAgent",
        "ToolApprove",
        "ToolDeny",
    ),
    *("ApiKeyCreate", "ApiKeyList", "ApiKeyRotate", "ApiKeyRevoke", "McpAdd", "McpRemove", "SchedulerSetBudget"),
    *("SecretUnlock", "SecretLock", "SecretRekey", "SecretAdd", "SecretList", "SecretRemove"),
    *("SecretPolicyAdd", "SecretPolicyList", "SecretPolicyShow", "SecretPolicyRemove"),
}
REFUSED_TO_ALL = {"AnomalyList", "ReplayTimeline", "SpawnChildAgentByName", "McpAttach", "McpDetach", "SecretRekey"} | {
    *("MemoryWriteCas", "DenyRequest", "ToolDeny"),
}
"""What is not there yet, and what is asked for here in a way that cannot succeed."""

STARTS = {"SpawnAgent", "SpawnChildAgent", "AgentStoreRun"}
NOTHING = "00000000-0000-4000-8000-000000000000"
"""The id of nothing at all."""

Fields = dict[str, Any]
Step = tuple[str, Fields]
"""A message; ``$me`` and ``$other`` stand for agents, ``$last`` for the last id that was answered,
``$spawned`` for each agent that was started, in turn."""

STEPS: list[Step] = [
    ("Ping", {}),
    ("Status", {}),
    ("ListAgents", {}),
    ("AgentInfo", {"agent_id": "$me"}),
    ("AgentInfo", {"agent_id": "$other"}),
    ("AgentInfo", {"agent_id": "nobody"}),
    ("AgentInfo", {"agent_id": "6e0a3b4e-0000-4000-8000-0000000000ad"}),
    ("SpawnAgent", {"manifest_yaml": CHILD}),
    ("SpawnAgent", {"manifest_yaml": "nonsense"}),
    ("SpawnAgent", {"manifest_yaml": CHILD, "name": "both"}),
    ("SpawnChildAgent", {"calling_agent_id": "$me", "manifest_yaml": CHILD, "cap_override": ["tool.invoke:echo"]}),
    ("SpawnChildAgent", {"calling_agent_id": "$me", "manifest_yaml": CHILD, "cap_override": ["secret.use:a"]}),
    ("SpawnChildAgentByName", {"calling_agent_id": "$me", "name": "nobody", "task_override": "t"}),
    ("Transition", {"agent_id": "$me", "state": "act"}),
    ("Transition", {"agent_id": "$me", "state": "sleep"}),
    ("Transition", {"agent_id": "$other", "state": "act"}),
    ("PauseAgent", {"agent_id": "$other"}),
    ("ResumeAgent", {"agent_id": "$other"}),
    ("DiscoverAgents", {"agent_id": "$me", "pattern": "tool.*"}),
    ("Plan", {"agent_id": "$me", "steps": [{"description": "one"}]}),
    ("RevisePlan", {"agent_id": "$me", "steps": [{"description": "two", "tool": "echo"}]}),
    ("PlanShow", {"agent_id": "$me"}),
    ("AgentLogs", {"agent_id": "$me"}),
    ("ResultShow", {"agent_id": "$me"}),
    ("ResultSet", {"agent_id": "$me", "result": {"done": [1, 2]}}),
    ("HierarchyShow", {}),
    ("WorkspaceSnapshot", {"agent_id": "$me", "description": "before"}),
    ("WorkspaceHistory", {"agent_id": "$me"}),
    ("WorkspaceDiff", {"agent_id": "$me"}),
    ("WorkspaceRollback", {"agent_id": "$me", "index": 0}),
    ("WorkspaceRollback", {"agent_id": "$me", "index": 99}),
    ("WorkspaceCommit", {"agent_id": "$me"}),
    ("SchedulerStats", {}),
    ("SchedulerInfo", {"agent_id": "$me"}),
    ("SchedulerSetDeadline", {"agent_id": "$me", "deadline": "2999-01-01T00:00:00Z"}),
    ("SchedulerClearDeadline", {"agent_id": "$me"}),
    ("SchedulerSetPriority", {"agent_id": "$me", "priority": 20}),
    ("SchedulerSetPriority", {"agent_id": "$me", "priority": 200}),
    ("SchedulerSetBudget", {"agent_id": "$other", "budget": {"calls": 100}}),
    ("AnomalyList", {}),
    ("ReplayTimeline", {"agent_id": "$me"}),
    ("AgentStoreInstall", {"manifest_yaml": CHILD}),
    ("AgentStoreList", {}),
    ("AgentStoreShow", {"name": "child"}),
    ("AgentStoreRun", {"name": "child", "task_override": "t"}),
    ("AgentStoreRemove", {"name": "child"}),
    ("AgentStoreRemove", {"name": "child"}),
    ("ToolList", {"agent_id": "$me"}),
    ("ToolSchema", {"tool_name": "echo"}),
    ("ToolSchema", {"tool_name": "nothing"}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "echo", "input": {"a": 1}}),
    ("ToolInvoke", {"agent_id": "$other", "tool_name": "echo", "input": {"a": 1}}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "agent.info", "input": {}}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "nothing", "input": {}}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "fs.read", "input": {"path": "/workspace/none"}}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "fs.read", "input": {"path": "/etc/shadow"}}),
    ("ToolInvoke", {"agent_id": "$me", "tool_name": "fs.read", "input": {"pfad": 1}}),
    ("ToolInvokeAsync", {"agent_id": "$me", "tool_name": "sensitive-op", "input": {"a": 1}}),
    ("PendingList", {}),
    ("PendingShow", {"request_id": "$last"}),
    ("ApproveRequest", {"request_id": "$last", "operator": "ada"}),
    ("DenyRequest", {"request_id": "$last", "operator": "ada"}),
    ("ToolPropose", {"agent_id": "$me", **TOOL}),
    ("ToolProposals", {}),
    ("ToolProposal", {"proposal_id": "$last"}),
    ("ToolApprove", {"proposal_id": "$last"}),
    ("ToolDeny", {"proposal_id": "$last"}),
    ("PolicyTest", {"manifest_yaml": CHILD, "tool": "echo", "input": {}}),
    ("PolicySimulate", {"manifest_yaml": CHILD, "agent_id": "$me"}),
    ("PolicyShadow", {"agent_id": "$me", "manifest_yaml": CHILD}),
    ("PolicyShadowList", {}),
    ("PolicyShadowShow", {"agent_id": "$me"}),
    ("PolicyShadowEnd", {"agent_id": "$me"}),
    ("GrantList", {"agent_id": "$other"}),
    ("GrantCapability", {"agent_id": "$other", "capability": "tool.invoke:agent.info"}),
    ("GrantCapability", {"agent_id": "$other", "capability": "nonsense"}),
    ("GrantRevoke", {"agent_id": "$other", "grant_id": "$last"}),
    ("RequestCapability", {"agent_id": "$me", "capability": "net.local", "reason": "printer"}),
    ("EscalationList", {}),
    ("EscalationResolve", {"escalation_id": "$last", "decision": "deny"}),
    ("EndorseAgent", {"agent_id": "$me", "reason": "seen"}),
    ("McpAdd", SERVER),
    ("McpList", {}),
    ("McpAttach", {"agent_id": "$other", "name": "nothing"}),
    ("McpAttached", {"agent_id": "$me"}),
    ("McpDetach", {"agent_id": "$me", "name": "files"}),
    ("McpRemove", {"name": "files"}),
    ("ObservationAppend", {"agent_id": "$me", "action": "look", "result": "seen", "tags": ["a"], "metadata": None}),
    ("ObservationAppend", {"agent_id": "$other", "action": "look", "result": "seen"}),
    ("ObservationQuery", {"agent_id": "$me", "keyword": "look"}),
    ("MemoryWrite", {"agent_id": "$me", "key": "a/b", "value": {"n": 1}, "ttl_secs": None}),
    ("MemoryWriteCas", {"agent_id": "$me", "key": "a/b", "expected_version": 0, "value": 2, "ttl_secs": None}),
    ("MemoryRead", {"agent_id": "$me", "key": "a/b"}),
    ("MemoryRead", {"agent_id": "$me", "key": "none"}),
    ("MemoryRead", {"agent_id": "$other", "key": "a"}),
    ("MemoryList", {"agent_id": "$me", "pattern": "a/*"}),
    ("MemoryDelete", {"agent_id": "$me", "key": "a/b"}),
    ("BlackboardWrite", {"key": "lock/a", "value": "mine"}),
    ("BlackboardRead", {"key": "lock/a"}),
    ("BlackboardCas", {"key": "lock/a", "expected": "yours", "new_value": "mine"}),
    ("BlackboardCas", {"key": "lock/b", "expected": None, "new_value": "mine"}),
    ("BlackboardList", {"pattern": "lock/*"}),
    ("BlackboardDelete", {"key": "lock/a"}),
    ("BusSubscribe", {"agent_id": "$me", "pattern": "news.*"}),
    ("BusSubscriptions", {"agent_id": "$me"}),
    ("BusPublish", {"topic": "news.a", "payload": {"b": 1}}),
    ("BusPublish", {"topic": "scarab.escalation.x", "payload": 1}),
    ("BusPoll", {"agent_id": "$me"}),
    ("BusUnsubscribe", {"agent_id": "$me", "pattern": "news.*"}),
    ("SecretList", {}),
    ("SecretUnlock", {"passphrase": "correct horse battery staple"}),
    ("SecretAdd", {"name": "ci-token", "value": "hunter22"}),
    ("SecretRekey", {"old_passphrase": "wrong", "new_passphrase": "correct horse battery staple"}),
    ("SecretRemove", {"name": "ci-token"}),
    ("SecretRemove", {"name": "ci-token"}),
    ("SecretPolicyAdd", POLICY),
    ("SecretPolicyList", {}),
    ("SecretPolicyShow", {"id": "$last"}),
    ("SecretPolicyRemove", {"id": "$last"}),
    ("SecretLock", {}),
    ("ApiKeyCreate", {"name": "more", "agent_id": "$other", "role": "agent"}),
    ("ApiKeyList", {}),
    ("ApiKeyRotate", {"name": "more"}),
    ("ApiKeyRevoke", {"name": "more"}),
    ("ApiKeyRevoke", {"name": "more"}),
    ("AuditQuery", {"agent_id": "$me", "limit": 3}),
    ("AuditQuery", {"limit": 2, "action": ["ToolInvoke"]}),
    ("AuditKey", {}),
    ("AuditCheckpoint", {}),
    ("AuditProof", {"seq": 1}),
    ("AuditEntry", {"seq": 1}),
    ("AuditVerify", {"from": 0, "limit": 10}),
    # One by one: children that end together with their parent are recorded in any order.
    *[("KillAgent", {"agent_id": "$spawned"})] * 3,
    ("KillAgent", {"agent_id": "$other"}),
    ("KillAgent", {"agent_id": "$me"}),
    ("AgentInfo", {"agent_id": "$me"}),
]


@dataclass(kw_only=True)
class Told:
    """What came back, in the words that both doors share."""

    code: str | None
    body: Any


@dataclass(kw_only=True)
class Side:
    """One installation, asked through one door."""

    installation: Installation
    me: AgentId
    other: AgentId
    token: str
    client: Client | None
    """``None``: over HTTP."""
    last: str = NOTHING
    spawned: list[str] = field(default_factory=list)

    async def ask(self, name: str, fields: Fields) -> Told:
        filled = {key: self._meant(value) for key, value in fields.items()}
        told = await (self._over_http(name, filled) if self.client is None else self._over_socket(name, filled))
        if told.code is None:
            self._remember(told.body)
            if name in STARTS:
                self.spawned.append(self.last)
        return told

    def _meant(self, value: Any) -> Any:
        if value == "$spawned":
            return self.spawned.pop() if self.spawned else NOTHING
        named = {"$me": self.me, "$other": self.other, "$last": self.last}
        return named.get(value, value) if isinstance(value, str) else value

    def _remember(self, body: Any) -> None:
        for name in ("request_id", "proposal_id", "grant_id", "escalation_id", "id", "agent_id"):
            if isinstance(body, dict) and isinstance(body.get(name), str) and UUID.fullmatch(body[name]):
                self.last = body[name]
                return

    async def _over_http(self, name: str, fields: Fields) -> Told:
        filled = VARIANTS[name].fill(fields, own=None if self.token == "" else self.me)
        got = await self.installation.http(
            filled.method,
            _target(filled),
            token=self.token,
            json=filled.body if _has_body(filled) else None,
            headers=filled.headers,
        )
        if got.status >= 400:
            return Told(code=got.json()["code"], body=None)
        return Told(code=None, body=got.json() if got.headers.get("content-type") == "application/json" else None)

    async def _over_socket(self, name: str, fields: Fields) -> Told:
        assert self.client is not None
        answer = await self.client.ask({name: fields} if fields else name)
        if isinstance(answer, str):
            return Told(code=None, body=None)
        ((kind, carried),) = answer.items()
        if kind == "Error" or (kind == "ToolResult" and carried["status"] != "success"):
            return Told(code=carried["code"], body=None)
        return Told(code=None, body=carried)


def _target(filled: Filled) -> str:
    path = filled.path
    for name, value in filled.parameters.items():
        path = path.replace(f"{{{name}}}", quote(value, safe="")).replace(f"{{{name}...}}", quote(value, safe="/"))
    query = urlencode(filled.query, doseq=True)
    return f"{path}?{query}" if query else path


def _has_body(filled: Filled) -> bool:
    return ROWS[filled.method, filled.path].body is not None and filled.body is not None


def _normal(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries without what belongs to a door or a moment; ids are numbered in the order they appear."""
    numbers: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"id-{len(numbers)}")

    kept = [{name: value for name, value in entry.items() if name not in OF_THE_DOOR} for entry in found]
    for entry in kept:
        entry["data"] = _timeless(entry.get("data", {}))
        if entry["action"] == "ReadsAggregated":
            entry["data"].pop("minute", None)
        entry.pop("intent_id", None)
    return [msgspec.json.decode(UUID.sub(numbered, msgspec.json.encode(entry).decode())) for entry in kept]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _timeless(inner)
            for name, inner in value.items()
            if not OF_THE_MOMENT.match(name) or isinstance(inner, dict)
        }
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _check_outcomes(outcomes: dict[str, set[str | None]], *, of_agent: bool) -> None:
    """The comparison means something: what should work does, and what is for operators is for them alone."""
    if of_agent:
        assert all(None not in outcomes[name] for name in OPERATORS_OWN)
    else:
        assert {name for name, codes in outcomes.items() if None not in codes} <= REFUSED_TO_ALL


async def _side(undo: AsyncExitStack, folder: Path, capabilities: tuple[str, ...] | None, *, socket: bool) -> Side:
    installation = await undo.enter_async_context(installed(folder))
    me = await installation.spawn(manifest("me", *(capabilities or RICH), trust="privileged"))
    other = await installation.spawn(manifest("other", *RICH, trust="privileged"))
    token = "" if capabilities is None else await installation.key(me, "socket", role="agent")
    client = None
    if socket:
        client = await (installation.as_operator() if capabilities is None else installation.as_agent(me))
        undo.push_async_callback(client.close)
    return Side(installation=installation, me=me, other=other, token=token, client=client)


@pytest.fixture
async def undo() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def test_every_message_takes_part() -> None:
    assert {name for name, _ in STEPS} == set(VARIANTS)
    assert all(ROWS[row.method, row.path].access in (Access.CALLER, Access.PUBLIC)
               for variant in VARIANTS.values() for row in variant.rows)  # fmt: skip


@pytest.mark.parametrize(
    "capabilities", [None, RICH, POOR], ids=["the operator", "an agent that may much", "an agent that may little"]
)
async def test_both_doors_decide_and_record_alike(
    undo: AsyncExitStack, tmp_path: Path, capabilities: tuple[str, ...] | None
) -> None:
    http = await _side(undo, tmp_path / "http", capabilities, socket=False)
    socket = await _side(undo, tmp_path / "ipc", capabilities, socket=True)
    before = [len(await side.installation.entries()) for side in (http, socket)]
    assert before[0] == before[1]
    outcomes: dict[str, set[str | None]] = {}
    for name, fields in STEPS:
        over_http, over_socket = await http.ask(name, fields), await socket.ask(name, fields)
        for side in (http, socket):  # what goes on after the answer must not come between others' entries
            await side.installation.governance.services.agents.settled()
        assert over_http.code == over_socket.code, (name, fields, over_http, over_socket)
        outcomes.setdefault(name, set()).add(over_http.code)
    _check_outcomes(outcomes, of_agent=capabilities is not None)
    for side in (http, socket):
        await side.installation.governance.services.reads.flush(everything=True)
    ledgers = [(await side.installation.entries())[before[0] :] for side in (http, socket)]
    doors = [{entry["via"] for entry in found} for found in ledgers]
    assert (doors[0] - {"daemon"}, doors[1] - {"daemon"}) == ({"http"}, {"ipc"})
    told = [_normal(found) for found in ledgers]
    for one, two in zip(*told, strict=False):
        assert one == two
    assert len(told[0]) == len(told[1])
