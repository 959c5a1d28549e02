"""Asking "what if": ``/policy/…``."""

from typing import Any

from msgspec import Struct, field

from borough.governance.decisions import Allowed, Decision, Denied
from borough.governance.services.policy import Simulated
from borough.governance.services.trials import Trial
from borough.http.governance.common import (
    AGENT_ERRORS,
    LEDGER_ERRORS,
    asker,
    moment,
    parse_agent,
    parse_moment,
)
from borough.http.governance.common import agent_id as path_agent_id
from borough.http.operations import Access, Answer, Call, Operation

_ERRORS = {
    **AGENT_ERRORS,
    "invalid_manifest": 422,
    "invalid_yaml": 422,
    "document_too_long": 422,
    "unsupported_version": 422,
}


class TestBody(Struct, kw_only=True, forbid_unknown_fields=True):
    manifest_yaml: str
    tool: str
    input: dict[str, Any] = field(default_factory=dict)
    tainted: bool = False


class SimulateBody(Struct, kw_only=True, forbid_unknown_fields=True):
    manifest_yaml: str
    agent: str
    """An agent's id, or a name: all agents of it."""
    since: str | None = None
    until: str | None = None


class ShadowBody(Struct, kw_only=True, forbid_unknown_fields=True):
    agent_id: str
    manifest_yaml: str


class Verdict(Struct, kw_only=True, omit_defaults=True):
    """A decision, with the rule that made it."""

    verdict: str
    rules: list[str]
    code: str | None = None
    reason: str | None = None
    resolution: str | None = None
    approvers: int | None = None


class ChangedCall(Struct, kw_only=True):
    entry_id: str
    at: str
    tool: str
    input: dict[str, Any]
    was: str
    now: Verdict


class SimulationView(Struct, kw_only=True):
    calls: int
    same: int
    changed: list[ChangedCall]
    undecidable: list[str]
    """Entries of calls whose arguments were too long to be kept."""
    cut: bool
    """Whether there were more calls than are looked at."""


class DifferenceView(Struct, kw_only=True):
    at: str
    tool: str
    enforced: str
    trial: str
    rule: str


class TrialView(Struct, kw_only=True):
    agent_id: str
    manifest: str
    since: str
    put_by: str
    calls: int
    differing: int
    differences: list[DifferenceView]


def verdict(decision: Decision) -> Verdict:
    """Return a decision as it is shown."""
    if isinstance(decision, Allowed):
        return Verdict(verdict=decision.verdict, rules=list(dict.fromkeys(decision.rules)))
    if isinstance(decision, Denied):
        return Verdict(
            verdict=decision.verdict,
            rules=[decision.rule],
            code=decision.code,
            reason=decision.reason,
            resolution=decision.resolution,
        )
    return Verdict(
        verdict=decision.verdict, rules=[decision.rule], reason=decision.reason, approvers=decision.approvers
    )


def _simulation(found: Simulated) -> SimulationView:
    simulation = found.simulation
    return SimulationView(
        calls=found.calls,
        same=simulation.same,
        changed=[
            ChangedCall(
                entry_id=change.call.id,
                at=moment(change.call.at) or "",
                tool=change.call.tool,
                input=dict(change.call.arguments or {}),
                was=change.call.verdict,
                now=verdict(change.decision),
            )
            for change in simulation.changed
        ],
        undecidable=[call.id for call in simulation.undecidable],
        cut=found.cut,
    )


def _trial(trial: Trial) -> TrialView:
    return TrialView(
        agent_id=trial.agent_id,
        manifest=f"{trial.manifest.name}@{trial.manifest.version}",
        since=moment(trial.since) or "",
        put_by=trial.put_by,
        calls=trial.calls,
        differing=trial.differing,
        differences=[
            DifferenceView(
                at=moment(each.at) or "", tool=each.tool, enforced=each.enforced, trial=each.trial, rule=each.rule
            )
            for each in trial.differences
        ],
    )


async def test(call: Call) -> object:
    body: TestBody = call.body
    decision = await call.state.tooling.policy.test(
        asker(call), body.manifest_yaml, body.tool, body.input, tainted=body.tainted
    )
    return verdict(decision)


async def simulate(call: Call) -> object:
    body: SimulateBody = call.body
    found = await call.state.tooling.policy.simulate(
        asker(call),
        body.manifest_yaml,
        agent=body.agent,
        since=parse_moment(body.since, "since"),
        until=parse_moment(body.until, "until"),
    )
    return _simulation(found)


async def put_on_trial(call: Call) -> object:
    body: ShadowBody = call.body
    policy = call.state.tooling.policy
    return _trial(await policy.put_on_trial(asker(call), parse_agent(body.agent_id), body.manifest_yaml))


async def trials(call: Call) -> object:
    return [_trial(trial) for trial in await call.state.tooling.policy.trials(asker(call))]


async def trial(call: Call) -> object:
    return _trial(await call.state.tooling.policy.trial(asker(call), path_agent_id(call)))


async def end_trial(call: Call) -> object:
    return _trial(await call.state.tooling.policy.end_trial(asker(call), path_agent_id(call)))


OPERATIONS = (
    Operation(
        method="POST",
        path="/policy/test",
        handler=test,
        access=Access.CALLER,
        summary="What would be decided about a call of a fresh agent",
        tag="policy",
        body=TestBody,
        answers=(Answer(status=200, body=Verdict, description="the decision"),),
        errors=_ERRORS,
    ),
    Operation(
        method="POST",
        path="/policy/simulate",
        handler=simulate,
        access=Access.CALLER,
        summary="Which past calls a changed manifest would decide otherwise",
        tag="policy",
        body=SimulateBody,
        streaming=True,
        answers=(Answer(status=200, body=SimulationView, description="what would change"),),
        errors={**_ERRORS, "unknown_agent": 404},
    ),
    Operation(
        method="POST",
        path="/policy/shadow",
        handler=put_on_trial,
        access=Access.CALLER,
        summary="Put a manifest on trial beside that of a running agent",
        description="Every call is decided under it too, without effect; what differs is listed and recorded.",
        tag="policy",
        body=ShadowBody,
        answers=(Answer(status=201, body=TrialView, description="the trial"),),
        errors={**_ERRORS, **LEDGER_ERRORS},
    ),
    Operation(
        method="GET",
        path="/policy/shadow",
        handler=trials,
        access=Access.CALLER,
        summary="Manifests on trial",
        tag="policy",
        answers=(Answer(status=200, body=list[TrialView], description="each with the newest differences"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="GET",
        path="/policy/shadow/{id}",
        handler=trial,
        access=Access.CALLER,
        summary="How an agent's trial fares",
        tag="policy",
        answers=(Answer(status=200, body=TrialView, description="the trial"),),
        errors={**AGENT_ERRORS, "trial_not_found": 404},
    ),
    Operation(
        method="DELETE",
        path="/policy/shadow/{id}",
        handler=end_trial,
        access=Access.CALLER,
        summary="End an agent's trial",
        tag="policy",
        answers=(Answer(status=200, body=TrialView, description="how it fared"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "trial_not_found": 404},
    ),
)
