"""The store of secrets, and the pre-approvals for their use. Values go in, and never come out."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from borough.core.errors import Invalid
from borough.governance.globs import compile_glob
from borough.governance.manifests import AgentMatcher, MatcherType
from borough.governance.secrets import SecretPolicy
from borough.governance.trust import TrustLevel
from borough.http.governance.audit import Moment
from borough.http.governance.common import LEDGER_ERRORS, REFUSALS, asker, moment, parse_moment
from borough.http.operations import Access, Answer, Call, Operation, Reply

Passphrase = Annotated[str, Meta(min_length=1, max_length=1024)]
SecretGlob = Annotated[str, Meta(min_length=1, max_length=256)]
STORE_ERRORS = {
    **REFUSALS,
    **LEDGER_ERRORS,
    "store_locked": 423,
    "wrong_passphrase": 403,
    "invalid_passphrase": 400,
    "invalid_secret_name": 400,
    "invalid_secret_value": 400,
    "secret_not_found": 404,
}
POLICY_ERRORS = {**REFUSALS, **LEDGER_ERRORS, "policy_not_found": 404, "invalid_request": 400}
_MATCHED_BY = {"by_id": "id", "by_name_glob": "pattern", "by_trust_level": "level"}


class Unlock(Struct, kw_only=True, forbid_unknown_fields=True):
    """The passphrase of the store; the first one makes it."""

    passphrase: Passphrase


class Rekey(Struct, kw_only=True, forbid_unknown_fields=True):
    """Another passphrase for the store."""

    old_passphrase: Passphrase
    new_passphrase: Passphrase


class SecretCount(Struct, kw_only=True):
    """How many secrets the store holds."""

    secrets: int


class SecretName(Struct, kw_only=True):
    """A secret: its name, and nothing else."""

    name: str


class SecretWrite(Struct, kw_only=True, forbid_unknown_fields=True):
    """A secret to be sealed."""

    value: Annotated[str, Meta(min_length=1, max_length=65_536)]
    description: Annotated[str, Meta(max_length=1024)] | None = None


class SecretSealed(Struct, kw_only=True, omit_defaults=True):
    """A secret that was sealed."""

    name: str
    warning: str | None = None


class Matcher(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which agents are meant."""

    type: Literal["any", "by_id", "by_name_glob", "by_trust_level"]
    id: str | None = None
    pattern: str | None = None
    level: TrustLevel | None = None


class SecretPolicyNew(Struct, kw_only=True, forbid_unknown_fields=True):
    """A pre-approval to be made."""

    label: Annotated[str, Meta(min_length=1, max_length=256)]
    secret_pattern: SecretGlob
    tool_pattern: SecretGlob
    host_pattern: SecretGlob | None = None
    expires_at: Moment | None = None
    max_uses: Annotated[int, Meta(ge=1)] | None = None
    trust_level: TrustLevel | None = None
    """For agents of at least this level: the short form of a matcher."""
    agent_matcher: Matcher | None = None


class SecretPolicyView(Struct, kw_only=True):
    """A pre-approval: which secrets which tool may use towards which host, without asking again."""

    id: str
    label: str
    secret_pattern: str
    tool_pattern: str
    host_pattern: str | None
    expires_at: str | None
    max_uses: int | None
    use_count: int
    created_by: str
    agent_matcher: Matcher


async def unlock(call: Call) -> SecretCount:
    return SecretCount(secrets=await call.state.secrets.unlock(asker(call), call.body.passphrase.encode()))


async def lock(call: Call) -> Reply:
    await call.state.secrets.lock(asker(call))
    return Reply(status=204)


async def rekey(call: Call) -> SecretCount:
    body: Rekey = call.body
    count = await call.state.secrets.rekey(asker(call), body.old_passphrase.encode(), body.new_passphrase.encode())
    return SecretCount(secrets=count)


async def names(call: Call) -> list[SecretName]:
    return [SecretName(name=name) for name in await call.state.secrets.names(asker(call))]


async def put(call: Call) -> SecretSealed:
    body: SecretWrite = call.body
    name = call.path["name"]
    warning = await call.state.secrets.put(asker(call), name, body.value, description=body.description)
    return SecretSealed(name=name, warning=warning)


async def remove(call: Call) -> Reply:
    await call.state.secrets.remove(asker(call), call.path["name"])
    return Reply(status=204)


async def policies(call: Call) -> list[SecretPolicyView]:
    return [_view(policy) for policy in await call.state.secrets.policies(asker(call))]


async def policy(call: Call) -> SecretPolicyView:
    return _view(await call.state.secrets.policy(asker(call), call.path["id"]))


async def add_policy(call: Call) -> SecretPolicyView:
    return _view(await call.state.secrets.add_policy(asker(call), _policy(call.body)))


async def remove_policy(call: Call) -> Reply:
    await call.state.secrets.remove_policy(asker(call), call.path["id"])
    return Reply(status=204)


def _policy(body: SecretPolicyNew) -> SecretPolicy:
    return SecretPolicy(
        id="",
        label=body.label,
        secret=compile_glob(body.secret_pattern),
        tool=compile_glob(body.tool_pattern),
        host=compile_glob(body.host_pattern.lower()) if body.host_pattern else None,
        agents=_matcher(body),
        expires_at=parse_moment(body.expires_at, "expires_at"),
        max_uses=body.max_uses,
    )


def _matcher(body: SecretPolicyNew) -> AgentMatcher:
    given = body.agent_matcher
    if given is not None and body.trust_level is not None:
        raise _bad_matcher("trust_level is the short form of agent_matcher")
    if body.trust_level is not None:
        return AgentMatcher(type=MatcherType.BY_TRUST_LEVEL, level=body.trust_level)
    if given is None:
        return AgentMatcher()
    said = {name for name in ("id", "pattern", "level") if getattr(given, name) is not None}
    needed = {_MATCHED_BY[given.type]} if given.type in _MATCHED_BY else set()
    if said != needed:
        raise _bad_matcher(f"{given.type} goes with {', '.join(needed) or 'nothing else'}")
    pattern = compile_glob(given.pattern) if given.pattern is not None else None
    return AgentMatcher(type=MatcherType(given.type), id=given.id, pattern=pattern, level=given.level)


def _bad_matcher(reason: str) -> Invalid:
    return Invalid(
        "agent_matcher cannot be read",
        code="invalid_request",
        reason=reason,
        resolution='write it as {"type": "by_name_glob", "pattern": "report-*"}',
    )


def _view(made: SecretPolicy) -> SecretPolicyView:
    matcher = Matcher(
        type=made.agents.type.value,
        id=made.agents.id,
        pattern=made.agents.pattern.pattern if made.agents.pattern else None,
        level=made.agents.level,
    )
    return SecretPolicyView(
        id=made.id,
        label=made.label,
        secret_pattern=made.secret.pattern,
        tool_pattern=made.tool.pattern,
        host_pattern=made.host.pattern if made.host else None,
        expires_at=moment(made.expires_at),
        max_uses=made.max_uses,
        use_count=made.use_count,
        created_by=made.created_by,
        agent_matcher=matcher,
    )


def _row(method: str, path: str, **members: object) -> Operation:
    defaults = {"access": Access.CALLER, "tag": "secrets", "errors": STORE_ERRORS}
    return Operation(method=method, path=path, **{**defaults, **members})  # type: ignore[arg-type]  # rows of one table


OPERATIONS = (
    _row(
        "POST",
        "/secrets/unlock",
        handler=unlock,
        summary="Open the store; the first time, make it",
        body=Unlock,
        secret_answer=True,  # what was asked with is not kept, not even as a digest
        answers=(Answer(status=200, body=SecretCount, description="it is open"),),
    ),
    _row(
        "POST",
        "/secrets/lock",
        handler=lock,
        summary="Close the store",
        answers=(Answer(status=204, body=None, description="it is closed"),),
    ),
    _row(
        "POST",
        "/secrets/rekey",
        handler=rekey,
        summary="Seal everything under another passphrase, all or nothing",
        body=Rekey,
        secret_answer=True,
        answers=(Answer(status=200, body=SecretCount, description="done"),),
    ),
    _row(
        "GET",
        "/secrets",
        handler=names,
        summary="The names of all secrets",
        answers=(Answer(status=200, body=list[SecretName], description="names, in order"),),
    ),
    _row(
        "PUT",
        "/secrets/{name}",
        handler=put,
        summary="Seal a secret, over an older one of its name",
        description="Secrets called `canary.…` are for nothing but to be found: where one shows, it is recorded.",
        body=SecretWrite,
        answers=(Answer(status=200, body=SecretSealed, description="sealed"),),
    ),
    _row(
        "DELETE",
        "/secrets/{name}",
        handler=remove,
        summary="Forget a secret",
        answers=(Answer(status=204, body=None, description="it is gone"),),
    ),
    _row(
        "GET",
        "/secret-policies",
        handler=policies,
        summary="All pre-approvals",
        answers=(Answer(status=200, body=list[SecretPolicyView], description="oldest first"),),
        errors=POLICY_ERRORS,
    ),
    _row(
        "POST",
        "/secret-policies",
        handler=add_policy,
        summary="Approve beforehand that a tool uses secrets",
        body=SecretPolicyNew,
        answers=(Answer(status=201, body=SecretPolicyView, description="it holds"),),
        errors={**POLICY_ERRORS, "invalid_query": 400},
    ),
    _row(
        "GET",
        "/secret-policies/{id}",
        handler=policy,
        summary="A pre-approval",
        answers=(Answer(status=200, body=SecretPolicyView, description="it"),),
        errors=POLICY_ERRORS,
    ),
    _row(
        "DELETE",
        "/secret-policies/{id}",
        handler=remove_policy,
        summary="Withdraw a pre-approval",
        answers=(Answer(status=204, body=None, description="it holds no more"),),
        errors=POLICY_ERRORS,
    ),
)
