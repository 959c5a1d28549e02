"""``ash``: what people decide: calls that wait for agreement, capabilities given for a time, who started whom."""

import getpass
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, as_json, ash_command, ask, member, show_done, show_table, when
from borough.cli.output import output
from borough.core.clock import rfc3339, utc_now

_HERE: Final = "borough.cli.ash_people"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

grants = AshGroup(
    "grants",
    help="Capabilities given for a time.",
    example=f"ash grants issue {_ID} fs.write:/workspace/out/** --ttl 600\nash grants list {_ID}",
    table={
        "list": (f"{_HERE}:list_grants", "List what an agent was given."),
        "issue": (f"{_HERE}:issue", "Give an agent a capability."),
        "revoke": (f"{_HERE}:revoke", "Take it back."),
    },
)
hierarchy = AshGroup(
    "hierarchy",
    help="Who started whom, and what agents want decided above them.",
    example="ash hierarchy show",
    table={
        "show": (f"{_HERE}:show", "Draw the tree."),
        "escalations": (f"{_HERE}:escalations", "List what waits for a decision."),
        "resolve": (f"{_HERE}:resolve", "Decide one: approve, deny, or pass it up."),
    },
)


@ash_command("pending", example="ash pending")
def pending() -> None:
    """List the calls that wait for somebody's agreement."""
    show_table(
        ask("PendingList")["approvals"],
        [
            ("request-id", member("request_id")),
            ("agent", member("agent_id")),
            ("tool", member("tool_name")),
            ("created", when("submitted_at")),
            ("input", as_json("input")),
        ],
        empty="nothing waits",
    )


@ash_command("approve", example=f"ash approve {_ID}")
@click.argument("request_id")
@click.option("--operator", metavar="NAME", help="Who agrees.  [default: you]")
def approve(*, request_id: str, operator: str | None) -> None:
    """Agree to a call: this very one, once. It is made at once."""
    _decide("ApproveRequest", request_id, operator, "Approved")


@ash_command("deny", example=f"ash deny {_ID}")
@click.argument("request_id")
@click.option("--operator", metavar="NAME", help="Who refuses.  [default: you]")
def deny(*, request_id: str, operator: str | None) -> None:
    """Refuse a call; the agent is told."""
    _decide("DenyRequest", request_id, operator, "Denied")


def _decide(variant: str, request_id: str, operator: str | None, done: str) -> None:
    told = ask(variant, request_id=request_id, operator=operator or getpass.getuser())
    output().show(told, lambda: output().line(f"{done} {request_id}"))


@ash_command("endorse", example=f"ash endorse {_ID} --reason 'read what it fetched'")
@click.argument("agent_id")
@click.option("--reason", metavar="TEXT", help="Why; it is recorded.")
def endorse(*, agent_id: str, reason: str | None) -> None:
    """Say that an agent that has read data from outside may send data out again."""
    show_done("EndorseAgent", f"Endorsed {agent_id}", agent_id=agent_id, reason=reason)


@ash_command("list", example=f"ash grants list {_ID}")
@click.argument("agent_id")
def list_grants(*, agent_id: str) -> None:
    """List what an agent was given."""
    show_table(
        ask("GrantList", agent_id=agent_id)["grants"],
        [
            ("grant-id", member("grant_id")),
            ("capability", member("capability")),
            ("granted-by", member("granted_by")),
            ("expires", when("expires_at")),
        ],
        empty="no grants",
    )


@ash_command("issue", example=f"ash grants issue {_ID} net.connect:api.example.com:443 --ttl 600")
@click.argument("agent_id")
@click.argument("capability")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="For so long; else until it ends.")
def issue(*, agent_id: str, capability: str, ttl: int | None) -> None:
    """Give an agent a capability, never above what its trust level allows."""
    expires_at = rfc3339(utc_now() + timedelta(seconds=ttl)) if ttl else None
    made = ask("GrantCapability", agent_id=agent_id, capability=capability, expires_at=expires_at)
    output().show(made, lambda: output().line(f"Grant {made['grant_id']}"))


@ash_command("revoke", example=f"ash grants revoke {_ID} {_ID}")
@click.argument("agent_id")
@click.argument("grant_id")
def revoke(*, agent_id: str, grant_id: str) -> None:
    """Take a capability back, at once."""
    show_done("GrantRevoke", f"Revoked {grant_id}", agent_id=agent_id, grant_id=grant_id)


@ash_command("show", example="ash hierarchy show")
def show() -> None:
    """Draw the tree of agents."""
    found = ask("HierarchyShow")
    roots: Any = found["agents"] if isinstance(found, dict) else found

    def human() -> None:
        for root in roots:
            _draw(root, "", last=True, root=True)

    output().show(found, human)


def _draw(agent: Mapping[str, Any], above: str, *, last: bool, root: bool = False) -> None:
    branch = "" if root else ("└── " if last else "├── ")
    output().line(f"{above}{branch}{agent['name']} ({agent['id'][:8]}) [{agent['state'].lower()}]")
    children = agent.get("children", ())
    below = above if root else above + ("    " if last else "│   ")
    for number, child in enumerate(children, start=1):
        _draw(child, below, last=number == len(children))


@ash_command("escalations", example="ash hierarchy escalations")
def escalations() -> None:
    """List what waits for a decision."""
    show_table(
        ask("EscalationList")["escalations"],
        [
            ("escalation-id", member("escalation_id")),
            ("from", member("from_agent_id")),
            ("to", member("to_agent_id")),
            ("kind", member("kind")),
            ("capability", member("capability")),
            ("detail", member("detail")),
            ("created", when("created_at")),
        ],
        empty="nothing waits",
    )


@ash_command("resolve", example=f"ash hierarchy resolve {_ID} approve")
@click.argument("escalation_id")
@click.argument("decision", type=click.Choice(["approve", "deny", "pass-up"]))
@click.option("--reason", metavar="TEXT", help="Why; the agent is told.")
def resolve(*, escalation_id: str, decision: str, reason: str | None) -> None:
    """Decide what an agent asked for."""
    done = ask("EscalationResolve", escalation_id=escalation_id, decision=decision.replace("-", "_"), reason=reason)
    output().show(done, lambda: output().line(f"{decision}: {escalation_id}"))
