"""Messages about what agents may do: policy, approvals, grants, escalations."""

from collections.abc import Mapping

from borough.ipc.rows import AGENT, Variant, ok, one, row, same, wrapped

PERMISSIONS: Mapping[str, Variant] = {
    "PendingShow": one(row("GET", "/approvals/{request_id}", parameters=same("request_id")), wrapped("Decided")),
    "PolicyTest": one(
        row("POST", "/policy/test", body=same("manifest_yaml", "tool", "input", "tainted")), wrapped("Verdict")
    ),
    "PolicySimulate": one(
        row("POST", "/policy/simulate", body={**same("manifest_yaml", "since", "until"), "agent_id": "agent"}),
        wrapped("Simulation"),
    ),
    "PolicyShadow": one(
        row("POST", "/policy/shadow", body=same("agent_id", "manifest_yaml")), wrapped("Trial"), target=None
    ),
    "PolicyShadowList": one(row("GET", "/policy/shadow"), wrapped("Trials", "trials")),
    "PolicyShadowShow": one(row("GET", "/policy/shadow/{id}", parameters=AGENT), wrapped("Trial"), target=None),
    "PolicyShadowEnd": one(row("DELETE", "/policy/shadow/{id}", parameters=AGENT), wrapped("Trial"), target=None),
    "PendingList": one(row("GET", "/approvals"), wrapped("Pending", "approvals")),
    "ApproveRequest": one(
        row("POST", "/approvals/{request_id}/approve", parameters=same("request_id"), body=same("operator")),
        wrapped("Decided"),
    ),
    "DenyRequest": one(
        row("POST", "/approvals/{request_id}/deny", parameters=same("request_id"), body=same("operator")),
        wrapped("Decided"),
    ),
    "GrantList": one(row("GET", "/agents/{id}/grants", parameters=AGENT), wrapped("Grants", "grants")),
    "GrantCapability": one(
        row("POST", "/agents/{id}/grants", parameters=AGENT, body=same("capability", "expires_at", "ttl_secs")),
        wrapped("Granted"),
        own="grantor_id",
        target=None,
    ),
    "GrantRevoke": one(
        row("DELETE", "/agents/{id}/grants/{grant_id}", parameters={"id": "agent_id", "grant_id": "grant_id"}),
        ok,
        target=None,
    ),
    "RequestCapability": one(
        row(
            "POST",
            "/agents/{id}/capability-requests",
            parameters=AGENT,
            body=same("capability", "reason", "ttl_secs"),
        ),
        wrapped("Escalated"),
    ),
    "EscalationList": one(row("GET", "/escalations"), wrapped("Escalations", "escalations"), own="agent_id"),
    "EscalationResolve": one(
        row(
            "POST",
            "/escalations/{escalation_id}/resolve",
            parameters=same("escalation_id"),
            body=same("decision", "reason"),
        ),
        wrapped("Escalation"),
    ),
    "EndorseAgent": one(row("POST", "/agents/{id}/endorse", parameters=AGENT, body=same("reason")), ok, target=None),
}
