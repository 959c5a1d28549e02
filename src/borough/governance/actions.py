"""The names of what is recorded. One is written; the other names that the reference's pages use are understood."""

from enum import StrEnum


class Action(StrEnum):
    """What an entry of the ledger tells of."""

    AGENT_SPAWN = "AgentSpawn"
    AGENT_TERMINATE = "AgentTerminate"
    AGENT_PAUSE = "AgentPause"
    AGENT_RESUME = "AgentResume"
    PROCESS_EXIT = "ProcessExit"
    RESULT_SET = "ResultSet"
    SCHEDULE_CHANGE = "ScheduleChange"
    STORE_INSTALL = "StoreInstall"
    STORE_REMOVE = "StoreRemove"
    LIFECYCLE_TRANSITION = "LifecycleTransition"
    TOOL_INVOKE = "ToolInvoke"
    ACCESS_DENIED = "AccessDenied"
    APPROVAL_REQUESTED = "ApprovalRequested"
    HUMAN_APPROVAL = "HumanApproval"
    MEMORY_ACCESS = "MemoryAccess"
    BLACKBOARD_ACCESS = "BlackboardAccess"
    BUS_PUBLISH = "BusPublish"
    BUS_POLL = "BusPoll"
    BUS_SUBSCRIBE = "BusSubscribe"
    BUS_UNSUBSCRIBE = "BusUnsubscribe"
    OBSERVATION_APPEND = "ObservationAppend"
    WORKSPACE_SNAPSHOT = "WorkspaceSnapshot"
    WORKSPACE_ROLLBACK = "WorkspaceRollback"
    WORKSPACE_COMMIT = "WorkspaceCommit"
    SECRET_USE = "SecretUse"  # noqa: S105 - the name of an act
    SECRET_STORE_UNLOCK = "SecretStoreUnlock"  # noqa: S105 - the name of an act
    SECRET_STORE_LOCK = "SecretStoreLock"  # noqa: S105 - the name of an act
    SECRET_STORE_REKEY = "SecretStoreRekey"  # noqa: S105 - the name of an act
    SECRET_ADD = "SecretAdd"  # noqa: S105 - the name of an act
    SECRET_REMOVE = "SecretRemove"  # noqa: S105 - the name of an act
    POLICY_ADD = "PolicyAdd"
    POLICY_REMOVE = "PolicyRemove"
    ANOMALY_DETECTED = "AnomalyDetected"
    CAPABILITY_GRANT = "CapabilityGrant"
    CAPABILITY_REVOKE = "CapabilityRevoke"
    PLAN_DECLARE = "PlanDeclare"
    PLAN_REVISE = "PlanRevise"
    MCP_ATTACH = "McpAttach"
    MCP_DETACH = "McpDetach"
    MCP_ADD = "McpAdd"
    MCP_REMOVE = "McpRemove"
    TOOL_PROPOSE = "ToolPropose"
    TOOL_DECIDE = "ToolDecide"
    API_KEY_CREATE = "ApiKeyCreate"
    API_KEY_ROTATE = "ApiKeyRotate"
    API_KEY_REVOKE = "ApiKeyRevoke"
    AUTH_FAILURE = "AuthFailure"
    READS_AGGREGATED = "ReadsAggregated"
    KERNEL_DENIAL = "KernelDenial"
    BUDGET_WARNING = "BudgetWarning"
    BUDGET_EXCEEDED = "BudgetExceeded"
    ESCALATION = "Escalation"
    ESCALATION_RESOLVE = "EscalationResolve"
    ENDORSE = "Endorse"
    POLICY_SHADOW = "PolicyShadow"
    NETWORK_ACCESS = "NetworkAccess"
    MCP_REPORT = "McpReport"
    EVIDENCE_EXPORT = "EvidenceExport"
    DAEMON_START = "DaemonStart"
    DAEMON_STOP = "DaemonStop"
    RUN_ADMIT = "RunAdmit"
    RUN_ATTEMPT = "RunAttempt"
    RUN_END = "RunEnd"
    RUN_KILL = "RunKill"


ALIASES: dict[str, tuple[Action, ...]] = {
    "agent_spawned": (Action.AGENT_SPAWN,),
    "Spawn": (Action.AGENT_SPAWN,),
    "state_transition": (Action.LIFECYCLE_TRANSITION,),
    "StateTransition": (Action.LIFECYCLE_TRANSITION,),
    "tool_invoked": (Action.TOOL_INVOKE,),
    "access_denied": (Action.ACCESS_DENIED,),
    "approval_requested": (Action.APPROVAL_REQUESTED,),
    "approval_resolved": (Action.HUMAN_APPROVAL,),
    "memory_access": (Action.MEMORY_ACCESS,),
    "observation_appended": (Action.OBSERVATION_APPEND,),
    "workspace_snapshot": (Action.WORKSPACE_SNAPSHOT,),
    "secret_used": (Action.SECRET_USE,),
    "anomaly_detected": (Action.ANOMALY_DETECTED,),
    "capability_granted": (Action.CAPABILITY_GRANT,),
    "capability_revoked": (Action.CAPABILITY_REVOKE,),
    "CapabilityGrant": (Action.CAPABILITY_GRANT, Action.CAPABILITY_REVOKE),
    "plan_declared": (Action.PLAN_DECLARE,),
    "plan_revised": (Action.PLAN_REVISE,),
    "agent_terminated": (Action.AGENT_TERMINATE,),
    "Terminate": (Action.AGENT_TERMINATE,),
}
"""The other two vocabularies; one word of theirs stands for two of ours."""


def meant_by(word: str) -> tuple[str, ...]:
    """Return the names under which entries are found that a filter calls ``word``; an unknown word is its own."""
    return tuple(action.value for action in ALIASES[word]) if word in ALIASES else (word,)
