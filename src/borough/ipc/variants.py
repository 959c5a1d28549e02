"""Every message of the sockets, and the row of the operation table that it stands for.

The names and the fields are the reference system's, where its pages have them. An agent's own id may be left out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from borough.http.answers import Rendered
from borough.ipc.refusals import told_as_result
from borough.ipc.rows import Row, Variant, bare, content, ok, wrapped

_ID = {"id": "agent_id"}
_SEVERAL = frozenset({"action", "outcome"})
_KEY = {"id": "agent_id", "key": "key"}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _row(method: str, path: str, **more: Any) -> Row:
    return Row(method=method, path=path, **more)


def _one(name_or_rows: Row, answer: Any, **more: Any) -> Variant:
    return Variant(rows=(name_or_rows,), answer=answer, **more)


def _tool_result(rendered: Rendered) -> object:
    """Answer a call of a tool; one that waits for a human, and was not to be waited for, says so."""
    if rendered.status == 202:  # noqa: PLR2004 - Accepted
        return {"RequiresApproval": msgspec.Raw(rendered.body)}
    return {"ToolResult": content(rendered)}


_PLAN = _row("PUT", "/agents/{id}/plan", parameters=_ID, body=_same("steps", "reason"))

_DAEMON: Mapping[str, Variant] = {
    "Ping": _one(_row("GET", "/health"), bare("Pong")),
    "Status": _one(_row("GET", "/status"), wrapped("Status")),
}

_AGENTS: Mapping[str, Variant] = {
    "SpawnAgent": _one(
        _row("POST", "/agents", body=_same("manifest_yaml", "name", "task_override", "folder")),
        wrapped("Spawned", renamed={"id": "agent_id"}),
    ),
    "SpawnChildAgent": _one(
        _row(
            "POST",
            "/agents/{id}/children",
            parameters={"id": "calling_agent_id"},
            body=_same("manifest_yaml", "task_override", "cap_override"),
        ),
        wrapped("Spawned", renamed={"id": "agent_id"}),
        target="calling_agent_id",
    ),
    "SpawnChildAgentByName": _one(
        _row(
            "POST",
            "/agents/{id}/children",
            parameters={"id": "calling_agent_id"},
            body=_same("name", "task_override", "cap_override"),
        ),
        wrapped("Spawned", renamed={"id": "agent_id"}),
        target="calling_agent_id",
    ),
    "ListAgents": _one(_row("GET", "/agents", query=_same("ended")), wrapped("Agents", "agents")),
    "AgentInfo": _one(_row("GET", "/agents/{id}", parameters=_ID), wrapped("Agent")),
    "KillAgent": _one(_row("DELETE", "/agents/{id}", parameters=_ID), ok),
    "Transition": _one(
        _row("POST", "/agents/{id}/transitions", parameters=_ID, body=_same("state")), wrapped("Transitioned")
    ),
    "PauseAgent": _one(_row("POST", "/agents/{id}/pause", parameters=_ID), ok),
    "ResumeAgent": _one(_row("POST", "/agents/{id}/resume", parameters=_ID), ok),
    "DiscoverAgents": _one(
        _row("GET", "/agents/{id}/discover", parameters=_ID, query=_same("pattern")), wrapped("Agents", "agents")
    ),
    "Plan": _one(
        _row("PUT", "/agents/{id}/plan", parameters=_ID, body=_same("steps", "reason")), wrapped("PlanAccepted")
    ),
    "RevisePlan": _one(
        _row("PUT", "/agents/{id}/plan", parameters=_ID, body=_same("steps", "reason")), wrapped("PlanAccepted")
    ),
    "PlanShow": _one(_row("GET", "/agents/{id}/plan", parameters=_ID), wrapped("Plan")),
    "AgentLogs": _one(
        _row("GET", "/agents/{id}/logs", parameters=_ID, query=_same("offset", "limit", "run_id", "wait")),
        wrapped("Log", "text"),
    ),
    "ResultShow": _one(_row("GET", "/agents/{id}/result", parameters=_ID, query=_same("wait")), wrapped("Result")),
    "ResultSet": _one(_row("PUT", "/agents/{id}/result", parameters=_ID, whole="result"), ok),
    "HierarchyShow": _one(_row("GET", "/hierarchy"), wrapped("Hierarchy")),
    "WorkspaceSnapshot": _one(
        _row("POST", "/agents/{id}/workspace/snapshots", parameters=_ID, body=_same("description")), wrapped("Snapshot")
    ),
    "WorkspaceHistory": _one(
        _row("GET", "/agents/{id}/workspace/snapshots", parameters=_ID), wrapped("Snapshots", "snapshots")
    ),
    "WorkspaceDiff": _one(_row("GET", "/agents/{id}/workspace/diff", parameters=_ID), wrapped("Changes", "changes")),
    "WorkspaceRollback": _one(
        _row("POST", "/agents/{id}/workspace/rollback", parameters=_ID, body=_same("index")), wrapped("Snapshot")
    ),
    "WorkspaceCommit": _one(
        _row("POST", "/agents/{id}/workspace/commit", parameters=_ID, body=_same("description")), wrapped("Snapshot")
    ),
    "SchedulerStats": _one(_row("GET", "/scheduler"), wrapped("Scheduler")),
    "SchedulerInfo": _one(_row("GET", "/agents/{id}/schedule", parameters=_ID), wrapped("Schedule")),
    "SchedulerSetDeadline": _one(
        _row("PATCH", "/agents/{id}/schedule", parameters=_ID, body=_same("deadline")), wrapped("Schedule")
    ),
    "SchedulerClearDeadline": _one(
        _row("PATCH", "/agents/{id}/schedule", parameters=_ID, constant={"deadline": None}), wrapped("Schedule")
    ),
    "SchedulerSetPriority": _one(
        _row("PATCH", "/agents/{id}/schedule", parameters=_ID, body=_same("priority")), wrapped("Schedule")
    ),
    "SchedulerSetBudget": _one(
        _row("PATCH", "/agents/{id}/schedule", parameters=_ID, body=_same("budget")), wrapped("Schedule")
    ),
    "AnomalyList": _one(
        _row("GET", "/anomalies"), wrapped("Anomalies", "anomalies"), unused=frozenset({"agent_id", "limit"})
    ),
    "ReplayTimeline": _one(
        _row("GET", "/agents/{id}/timeline", parameters=_ID),
        wrapped("Timeline", "entries"),
        unused=frozenset({"since", "until"}),
    ),
    "AgentStoreInstall": _one(
        _row("POST", "/store/agents", body={"manifest_yaml": "manifest_yaml", "dir": "install_dir"}),
        wrapped("Installed"),
    ),
    "AgentStoreList": _one(_row("GET", "/store/agents"), wrapped("InstalledAgents", "agents")),
    "AgentStoreShow": _one(_row("GET", "/store/agents/{name}", parameters=_same("name")), wrapped("InstalledAgent")),
    "AgentStoreRemove": _one(_row("DELETE", "/store/agents/{name}", parameters=_same("name")), ok),
    "AgentStoreRun": _one(
        _row("POST", "/agents", body=_same("name", "task_override")), wrapped("Spawned", renamed={"id": "agent_id"})
    ),
}

_TOOLS: Mapping[str, Variant] = {
    "ToolList": Variant(
        rows=(_row("GET", "/agents/{id}/tools", parameters=_ID), _row("GET", "/tools")),
        answer=wrapped("Tools", "tools"),
    ),
    "ToolSchema": _one(
        _row("GET", "/tools/{name}", parameters={"name": "tool_name"}, query=_same("agent_id")), wrapped("Tool")
    ),
    "ToolInvoke": _one(
        _row("POST", "/agents/{id}/tools/{name}", parameters={"id": "agent_id", "name": "tool_name"}, whole="input"),
        _tool_result,
        refusal=told_as_result,
    ),
    "ToolInvokeAsync": _one(
        _row(
            "POST",
            "/agents/{id}/tools/{name}",
            parameters={"id": "agent_id", "name": "tool_name"},
            whole="input",
            headers={"prefer": lambda _fields: "respond-async"},
        ),
        _tool_result,
        refusal=told_as_result,
    ),
    "ToolPropose": _one(_row("POST", "/tool-proposals", body=_same("agent_id", "tool", "impl")), wrapped("Proposed")),
    "ToolProposals": _one(_row("GET", "/tool-proposals", query=_same("state")), wrapped("Proposals", "proposals")),
    "ToolApprove": _one(
        _row(
            "POST", "/tool-proposals/{proposal_id}/approve", parameters=_same("proposal_id"), body=_same("everywhere")
        ),
        wrapped("Proposal"),
    ),
    "ToolDeny": _one(
        _row("POST", "/tool-proposals/{proposal_id}/deny", parameters=_same("proposal_id")), wrapped("Proposal")
    ),
    "ToolProposal": _one(
        _row("GET", "/tool-proposals/{proposal_id}", parameters=_same("proposal_id")), wrapped("Proposal")
    ),
    "PendingShow": _one(_row("GET", "/approvals/{request_id}", parameters=_same("request_id")), wrapped("Decided")),
    "PolicyTest": _one(
        _row("POST", "/policy/test", body=_same("manifest_yaml", "tool", "input", "tainted")), wrapped("Verdict")
    ),
    "PolicySimulate": _one(
        _row("POST", "/policy/simulate", body={**_same("manifest_yaml", "since", "until"), "agent_id": "agent"}),
        wrapped("Simulation"),
    ),
    "PolicyShadow": _one(
        _row("POST", "/policy/shadow", body=_same("agent_id", "manifest_yaml")), wrapped("Trial"), target=None
    ),
    "PolicyShadowList": _one(_row("GET", "/policy/shadow"), wrapped("Trials", "trials")),
    "PolicyShadowShow": _one(_row("GET", "/policy/shadow/{id}", parameters=_ID), wrapped("Trial"), target=None),
    "PolicyShadowEnd": _one(_row("DELETE", "/policy/shadow/{id}", parameters=_ID), wrapped("Trial"), target=None),
    "PendingList": _one(_row("GET", "/approvals"), wrapped("Pending", "approvals")),
    "ApproveRequest": _one(
        _row("POST", "/approvals/{request_id}/approve", parameters=_same("request_id"), body=_same("operator")),
        wrapped("Decided"),
    ),
    "DenyRequest": _one(
        _row("POST", "/approvals/{request_id}/deny", parameters=_same("request_id"), body=_same("operator")),
        wrapped("Decided"),
    ),
    "GrantList": _one(_row("GET", "/agents/{id}/grants", parameters=_ID), wrapped("Grants", "grants")),
    "GrantCapability": _one(
        _row("POST", "/agents/{id}/grants", parameters=_ID, body=_same("capability", "expires_at", "ttl_secs")),
        wrapped("Granted"),
        own="grantor_id",
        target=None,
    ),
    "GrantRevoke": _one(
        _row("DELETE", "/agents/{id}/grants/{grant_id}", parameters={"id": "agent_id", "grant_id": "grant_id"}),
        ok,
        target=None,
    ),
    "RequestCapability": _one(
        _row(
            "POST",
            "/agents/{id}/capability-requests",
            parameters=_ID,
            body=_same("capability", "reason", "ttl_secs"),
        ),
        wrapped("Escalated"),
    ),
    "EscalationList": _one(_row("GET", "/escalations"), wrapped("Escalations", "escalations"), own="agent_id"),
    "EscalationResolve": _one(
        _row(
            "POST",
            "/escalations/{escalation_id}/resolve",
            parameters=_same("escalation_id"),
            body=_same("decision", "reason"),
        ),
        wrapped("Escalation"),
    ),
    "EndorseAgent": _one(_row("POST", "/agents/{id}/endorse", parameters=_ID, body=_same("reason")), ok, target=None),
    "McpAdd": _one(
        _row(
            "POST",
            "/mcp-servers",
            body=_same("name", "transport", "command", "args", "url", "env_template", "description"),
        ),
        wrapped("McpServer"),
    ),
    "McpList": _one(_row("GET", "/mcp-servers"), wrapped("McpServers", "servers")),
    "McpRemove": _one(_row("DELETE", "/mcp-servers/{name}", parameters=_same("name")), ok),
    "McpAttach": _one(
        _row(
            "PUT",
            "/agents/{id}/mcp/{name}",
            parameters={"id": "agent_id", "name": "name"},
            body=_same("accept_changes"),
        ),
        wrapped("McpAttached"),
        unused=frozenset({"operator_token"}),
    ),
    "McpDetach": _one(
        _row("DELETE", "/agents/{id}/mcp/{name}", parameters={"id": "agent_id", "name": "name"}), wrapped("McpDetached")
    ),
    "McpAttached": _one(_row("GET", "/agents/{id}/mcp", parameters=_ID), wrapped("McpServers", "servers")),
}

_RECORDS: Mapping[str, Variant] = {
    "AuditQuery": Variant(
        rows=(
            _row(
                "GET",
                "/agents/{id}/audit",
                parameters=_ID,
                query=_same("limit", "since", "until", "action", "outcome"),
                lists=_SEVERAL,
            ),
            _row(
                "GET",
                "/audit",
                query=_same("limit", "cursor", "order", "since", "until", "action", "outcome"),
                lists=_SEVERAL,
                defaults={"order": "newest"},
            ),
        ),
        answer=wrapped("Entries", "entries"),
    ),
    "AuditEntry": _one(
        _row("GET", "/audit/entries/{seq}", parameters=_same("seq"), numbers=frozenset({"seq"})),
        wrapped("Entry", "entry"),
    ),
    "AuditKey": _one(_row("GET", "/audit/key"), wrapped("Key", "key")),
    "AuditCheckpoint": _one(_row("GET", "/audit/checkpoint"), wrapped("Checkpoint", "note")),
    "AuditProof": _one(_row("GET", "/audit/proof", query=_same("seq", "from", "to")), wrapped("Proof")),
    "AuditVerify": _one(_row("GET", "/audit/verify", query=_same("from", "limit")), wrapped("Verified")),
    "ObservationAppend": _one(
        _row("POST", "/agents/{id}/observations", parameters=_ID, body=_same("action", "result", "tags", "metadata")),
        wrapped("Observation"),
    ),
    "ObservationQuery": _one(
        _row(
            "GET",
            "/agents/{id}/observations",
            parameters=_ID,
            query=_same("since", "until", "keyword", "tag", "limit"),
        ),
        wrapped("Observations", "observations"),
    ),
    "MemoryRead": _one(_row("GET", "/agents/{id}/memory/{key...}", parameters=_KEY), wrapped("Value")),
    "MemoryWrite": _one(
        _row("PUT", "/agents/{id}/memory/{key...}", parameters=_KEY, body=_same("value", "ttl_secs")), wrapped("Value")
    ),
    "MemoryWriteCas": _one(
        _row(
            "PUT",
            "/agents/{id}/memory/{key...}",
            parameters=_KEY,
            body=_same("value", "ttl_secs", "expected_version"),
        ),
        wrapped("Value"),
    ),
    "MemoryDelete": _one(_row("DELETE", "/agents/{id}/memory/{key...}", parameters=_KEY), ok),
    "MemoryList": _one(
        _row("GET", "/agents/{id}/memory", parameters=_ID, query=_same("pattern", "limit", "cursor")),
        wrapped("Keys", "keys"),
    ),
    "BlackboardRead": _one(
        _row("GET", "/blackboard/{key...}", parameters=_same("key")), wrapped("Value"), own="agent_id"
    ),
    "BlackboardWrite": _one(
        _row("PUT", "/blackboard/{key...}", parameters=_same("key"), body=_same("value", "ttl_secs")),
        wrapped("Value"),
        own="agent_id",
    ),
    "BlackboardCas": _one(
        _row("POST", "/blackboard/{key...}", parameters=_same("key"), body=_same("expected", "new_value", "ttl_secs")),
        wrapped("Value"),
        own="agent_id",
    ),
    "BlackboardDelete": _one(_row("DELETE", "/blackboard/{key...}", parameters=_same("key")), ok, own="agent_id"),
    "BlackboardList": _one(
        _row("GET", "/blackboard", query=_same("pattern", "limit", "cursor")), wrapped("Keys", "keys"), own="agent_id"
    ),
    "BusPublish": _one(_row("POST", "/bus/messages", body=_same("topic", "payload", "agent_id")), ok),
    "BusSubscribe": _one(_row("PUT", "/agents/{id}/subscriptions", parameters=_ID, body=_same("pattern")), ok),
    "BusUnsubscribe": _one(_row("DELETE", "/agents/{id}/subscriptions", parameters=_ID, query=_same("pattern")), ok),
    "BusSubscriptions": _one(
        _row("GET", "/agents/{id}/subscriptions", parameters=_ID), wrapped("Subscriptions", "patterns")
    ),
    "BusPoll": _one(_row("POST", "/agents/{id}/mailbox/poll", parameters=_ID), wrapped("Messages")),
    "SecretUnlock": _one(_row("POST", "/secrets/unlock", body=_same("passphrase")), wrapped("Unlocked")),
    "SecretLock": _one(_row("POST", "/secrets/lock"), ok),
    "SecretRekey": _one(
        _row("POST", "/secrets/rekey", body=_same("old_passphrase", "new_passphrase")), wrapped("Rekeyed")
    ),
    "SecretAdd": _one(
        _row("PUT", "/secrets/{name}", parameters=_same("name"), body=_same("value", "description")), wrapped("Sealed")
    ),
    "SecretList": _one(_row("GET", "/secrets"), wrapped("Secrets", "secrets")),
    "SecretRemove": _one(_row("DELETE", "/secrets/{name}", parameters=_same("name")), ok),
    "SecretPolicyAdd": _one(
        _row(
            "POST",
            "/secret-policies",
            body=_same(
                "label",
                "secret_pattern",
                "tool_pattern",
                "host_pattern",
                "expires_at",
                "max_uses",
                "trust_level",
                "agent_matcher",
            ),
        ),
        wrapped("SecretPolicy"),
    ),
    "SecretPolicyList": _one(_row("GET", "/secret-policies"), wrapped("SecretPolicies", "policies")),
    "SecretPolicyShow": _one(_row("GET", "/secret-policies/{id}", parameters={"id": "id"}), wrapped("SecretPolicy")),
    "SecretPolicyRemove": _one(_row("DELETE", "/secret-policies/{id}", parameters={"id": "id"}), ok),
    "ApiKeyCreate": _one(
        _row("POST", "/tokens", body=_same("name", "agent_id", "role", "scopes", "expires_at")),
        wrapped("ApiKey"),
        target=None,
    ),
    "ApiKeyList": _one(_row("GET", "/tokens"), wrapped("ApiKeys", "tokens")),
    "ApiKeyRotate": _one(
        _row("POST", "/tokens/{name}/rotate", parameters=_same("name"), body=_same("overlap_secs")), wrapped("ApiKey")
    ),
    "ApiKeyRevoke": _one(_row("DELETE", "/tokens/{name}", parameters=_same("name")), ok),
}

VARIANTS: Mapping[str, Variant] = {**_DAEMON, **_AGENTS, **_TOOLS, **_RECORDS}
