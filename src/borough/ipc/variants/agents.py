"""Messages about agents: their lives, plans and results, their time, and those that are installed."""

from collections.abc import Mapping

from borough.ipc.rows import AGENT, Variant, ok, one, row, same, wrapped

_PLAN = row("PUT", "/agents/{id}/plan", parameters=AGENT, body=same("steps", "reason"))

AGENTS: Mapping[str, Variant] = {
    "SpawnAgent": one(
        row("POST", "/agents", body=same("manifest_yaml", "name", "task_override", "folder")),
        wrapped("Spawned", renamed={"id": "agent_id"}),
    ),
    "SpawnChildAgent": one(
        row(
            "POST",
            "/agents/{id}/children",
            parameters={"id": "calling_agent_id"},
            body=same("manifest_yaml", "task_override", "cap_override"),
        ),
        wrapped("Spawned", renamed={"id": "agent_id"}),
        target="calling_agent_id",
    ),
    "SpawnChildAgentByName": one(
        row(
            "POST",
            "/agents/{id}/children",
            parameters={"id": "calling_agent_id"},
            body=same("name", "task_override", "cap_override"),
        ),
        wrapped("Spawned", renamed={"id": "agent_id"}),
        target="calling_agent_id",
    ),
    "ListAgents": one(row("GET", "/agents", query=same("ended")), wrapped("Agents", "agents")),
    "AgentInfo": one(row("GET", "/agents/{id}", parameters=AGENT), wrapped("Agent")),
    "KillAgent": one(row("DELETE", "/agents/{id}", parameters=AGENT), ok),
    "Transition": one(
        row("POST", "/agents/{id}/transitions", parameters=AGENT, body=same("state")), wrapped("Transitioned")
    ),
    "PauseAgent": one(row("POST", "/agents/{id}/pause", parameters=AGENT), ok),
    "ResumeAgent": one(row("POST", "/agents/{id}/resume", parameters=AGENT), ok),
    "DiscoverAgents": one(
        row("GET", "/agents/{id}/discover", parameters=AGENT, query=same("pattern")), wrapped("Agents", "agents")
    ),
    "Plan": one(_PLAN, wrapped("PlanAccepted")),
    "RevisePlan": one(_PLAN, wrapped("PlanAccepted")),
    "PlanShow": one(row("GET", "/agents/{id}/plan", parameters=AGENT), wrapped("Plan")),
    "AgentLogs": one(
        row("GET", "/agents/{id}/logs", parameters=AGENT, query=same("offset", "limit", "run_id", "wait")),
        wrapped("Log", "text"),
    ),
    "ResultShow": one(row("GET", "/agents/{id}/result", parameters=AGENT, query=same("wait")), wrapped("Result")),
    "ResultSet": one(row("PUT", "/agents/{id}/result", parameters=AGENT, whole="result"), ok),
    "HierarchyShow": one(row("GET", "/hierarchy"), wrapped("Hierarchy")),
    "WorkspaceSnapshot": one(
        row("POST", "/agents/{id}/workspace/snapshots", parameters=AGENT, body=same("description")), wrapped("Snapshot")
    ),
    "WorkspaceHistory": one(
        row("GET", "/agents/{id}/workspace/snapshots", parameters=AGENT), wrapped("Snapshots", "snapshots")
    ),
    "WorkspaceDiff": one(row("GET", "/agents/{id}/workspace/diff", parameters=AGENT), wrapped("Changes", "changes")),
    "WorkspaceRollback": one(
        row("POST", "/agents/{id}/workspace/rollback", parameters=AGENT, body=same("index")), wrapped("Snapshot")
    ),
    "WorkspaceCommit": one(
        row("POST", "/agents/{id}/workspace/commit", parameters=AGENT, body=same("description")), wrapped("Snapshot")
    ),
    "SchedulerStats": one(row("GET", "/scheduler"), wrapped("Scheduler")),
    "SchedulerInfo": one(row("GET", "/agents/{id}/schedule", parameters=AGENT), wrapped("Schedule")),
    "SchedulerSetDeadline": one(
        row("PATCH", "/agents/{id}/schedule", parameters=AGENT, body=same("deadline")), wrapped("Schedule")
    ),
    "SchedulerClearDeadline": one(
        row("PATCH", "/agents/{id}/schedule", parameters=AGENT, constant={"deadline": None}), wrapped("Schedule")
    ),
    "SchedulerSetPriority": one(
        row("PATCH", "/agents/{id}/schedule", parameters=AGENT, body=same("priority")), wrapped("Schedule")
    ),
    "SchedulerSetBudget": one(
        row("PATCH", "/agents/{id}/schedule", parameters=AGENT, body=same("budget")), wrapped("Schedule")
    ),
    "AnomalyList": one(
        row("GET", "/anomalies"), wrapped("Anomalies", "anomalies"), unused=frozenset({"agent_id", "limit"})
    ),
    "ReplayTimeline": one(
        row("GET", "/agents/{id}/timeline", parameters=AGENT),
        wrapped("Timeline", "entries"),
        unused=frozenset({"since", "until"}),
    ),
    "AgentStoreInstall": one(
        row("POST", "/store/agents", body={"manifest_yaml": "manifest_yaml", "dir": "install_dir"}),
        wrapped("Installed"),
    ),
    "AgentStoreList": one(row("GET", "/store/agents"), wrapped("InstalledAgents", "agents")),
    "AgentStoreShow": one(row("GET", "/store/agents/{name}", parameters=same("name")), wrapped("InstalledAgent")),
    "AgentStoreRemove": one(row("DELETE", "/store/agents/{name}", parameters=same("name")), ok),
    "AgentStoreRun": one(
        row("POST", "/agents", body=same("name", "task_override")), wrapped("Spawned", renamed={"id": "agent_id"})
    ),
}
