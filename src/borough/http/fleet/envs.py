"""Environments: ``/api/envs``."""

from msgspec import Struct, field

from borough.core.errors import Invalid
from borough.core.paging import MAX_LIMIT
from borough.fleet.engines import Capability, Engine
from borough.fleet.environments import OnExpiry, Spread
from borough.fleet.fitness import Constraints
from borough.fleet.orders import EnvOrder, Ids
from borough.fleet.ports.fleet import EnvFilter
from borough.fleet.services.clones import Source
from borough.fleet.ssh_keys import check_keys
from borough.fleet.vms import Action, VmId, VmSpec, vm_spec
from borough.http.fleet import render, wire
from borough.http.fleet.common import (
    CALL_ERRORS,
    ENV_ERRORS,
    NAME_ERRORS,
    SPEC_ERRORS,
    Flag,
    Later,
    Limit,
    accepted,
    egress_lines,
    is_set,
    operation_id,
    page_request,
    paged,
    vm_ids,
)
from borough.http.fleet.dialect import Done, Envelope, data
from borough.http.operations import Access, Answer, Call, Operation, Reply

_MOST_LIFETIME_S = 10 * 365 * 86_400
"""What is longer means: as long as may be."""


class CreateQuery(Struct, kw_only=True):
    later: Flag = field(name="async", default="0")
    dry_run: Flag = "0"


class EnvsQuery(Struct, kw_only=True):
    limit: Limit | None = None
    cursor: str | None = None
    owner: str | None = None
    label: list[str] = []


async def create(call: Call) -> object:
    order = await _order(call)
    if is_set(call.query.dry_run):
        return Reply(status=200, body=data(render.preview(await call.state.environments.preview(order))))
    ids = Ids(operation=operation_id(call), vms=vm_ids(call, len(order.specs)))
    if is_set(call.query.later):
        begun = await call.state.environments.create(order, ids)
        return accepted(begun.operation)
    return data(render.detail_view(await call.state.waiting.create(order, ids), strict=call.state.strict))


async def all_envs(call: Call) -> object:
    query: EnvsQuery = call.query
    wanted = EnvFilter(owner=query.owner, labels=dict(_label(text) for text in query.label))
    page = page_request(query.limit, query.cursor, most=MAX_LIMIT)
    found = await call.state.environments.find(wanted, page)
    return paged(
        [render.env_view(each, strict=call.state.strict) for each in found.items], found.after, limit=query.limit
    )


async def one(call: Call) -> object:
    return data(render.detail_view(await call.state.environments.detail(call.path["id"]), strict=call.state.strict))


async def change(call: Call) -> object:
    body: wire.ChangeEnv = call.body
    detail = await call.state.environments.change(
        call.path["id"],
        lifetime_s=_lifetime(body.lifetime),
        owner=body.owner,
        labels=body.labels,
        on_expiry=None if body.on_expiry is None else OnExpiry(body.on_expiry),
    )
    return data(render.detail_view(detail, strict=call.state.strict))


async def delete(call: Call) -> object:
    if is_set(call.query.later):
        return accepted(await call.state.environments.delete(call.path["id"], operation_id=operation_id(call)))
    await call.state.waiting.delete(call.path["id"], operation_id=operation_id(call))
    return Done()


async def stop(call: Call) -> object:
    return await _act(call, Action.STOP)


async def start(call: Call) -> object:
    return await _act(call, Action.START)


async def _act(call: Call, action: Action) -> object:
    chosen = call.state.environments if is_set(call.query.later) else call.state.waiting
    operation = await chosen.act(call.path["id"], action, operation_id=operation_id(call))
    return accepted(operation) if is_set(call.query.later) else Done()


async def _order(call: Call) -> EnvOrder:
    body: wire.CreateEnv = call.body
    placing, keys = body.placing, check_keys(body.ssh_keys)
    source = _source(body, keys)
    cloned = () if source is None else await call.state.clones.specs(source)
    return EnvOrder(
        id=body.id,
        owner=body.owner,
        specs=(*cloned, *(_spec(spec, keys) for spec in body.vms)),
        lifetime_s=_lifetime(body.lifetime),
        on_expiry=OnExpiry(body.on_expiry),
        labels=body.labels,
        constraints=Constraints(
            spread=Spread(placing.spread),
            labels=placing.labels,
            near=frozenset(placing.near),
            apart=frozenset(placing.apart),
            isolation=placing.isolation,
        ),
        private_network=body.private_network,
        wait_s=body.wait_for_capacity,
    )


def _source(body: wire.CreateEnv, keys: tuple[str, ...]) -> Source | None:
    told = body.source
    if told is None:
        return None
    if body.vms:
        raise Invalid(
            "an environment is made either from a source or from vms",
            code="invalid_source",
            resolution="leave vms empty, and make further machines in an environment of their own",
        )
    return Source(
        snapshot=told.snapshot,
        vm_id=None if told.vm_id is None else VmId(told.vm_id),
        env_id=told.env_id,
        copies=told.copies,
        env=told.env,
        ssh_keys=keys,
    )


def _spec(spec: wire.VmSpec, keys: tuple[str, ...]) -> VmSpec:
    return vm_spec(
        image=spec.image,
        engine=Engine(spec.engine),
        cpu=spec.cpu,
        mem_mib=spec.mem,
        disk_mib=spec.disk,
        ports=tuple(spec.ports),
        ssh_keys=(*keys, *spec.ssh_keys),
        deny_outgoing=spec.deny_outgoing,
        egress_allowlist=egress_lines(spec.egress_allowlist),
        command=tuple(spec.command),
        env=spec.env,
        required=frozenset(map(_capability, spec.required)),
    )


def _capability(name: str) -> Capability:
    try:
        return Capability(name)
    except ValueError:
        raise Invalid(
            f"there is no capability {name[:40]!r}",
            code="unknown_capability",
            resolution=f"choose from {', '.join(sorted(Capability))}",
        ) from None


def _lifetime(seconds: int | None) -> int | None:
    return None if seconds is None else min(seconds, _MOST_LIFETIME_S)


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


_LATER = Answer(status=202, body=Envelope[wire.Operation], description="with `async=1`: it has begun")
_DETAIL = Envelope[wire.EnvDetail]


def _row(
    method: str, path: str, handler: object, summary: str, answers: tuple[Answer, ...], **more: object
) -> Operation:
    return Operation(
        method=method,
        path=f"/api/envs{path}",
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.CALLER,
        summary=summary,
        tag="environments",
        answers=answers,
        **more,  # type: ignore[arg-type]  # fields of a row
    )


OPERATIONS = (
    _row(
        "POST",
        "",
        create,
        "Create an environment",
        (
            Answer(status=201, body=_DETAIL, description="it is made; `warnings` tell what of it is not"),
            Answer(status=200, body=Envelope[wire.Preview], description="with `dry_run=1`: where it would go, and why"),
            _LATER,
        ),
        query=CreateQuery,
        body=wire.CreateEnv,
        errors={
            **NAME_ERRORS,
            **SPEC_ERRORS,
            **CALL_ERRORS,
            "env_exists": 409,
            "invalid_source": 400,
            "env_not_found": 404,
            "vm_not_found": 404,
            "snapshot_not_found": 404,
            "not_possible": 409,
            "too_many_vms": 409,
            "too_many_waiting": 409,
            "invalid_wait": 400,
            "unschedulable": 422,
        },
        streaming=True,
    ),
    _row(
        "GET",
        "",
        all_envs,
        "List environments",
        (Answer(status=200, body=Envelope[list[wire.Env]], description="by name"),),
        query=EnvsQuery,
    ),
    _row(
        "GET",
        "/{id}",
        one,
        "An environment with its machines",
        (Answer(status=200, body=_DETAIL, description="as it is known; no host is asked"),),
        errors=ENV_ERRORS,
    ),
    _row(
        "PATCH",
        "/{id}",
        change,
        "Change lifetime, owner, labels, or what happens when the time is over",
        (Answer(status=200, body=_DETAIL, description="as it is now"),),
        body=wire.ChangeEnv,
        errors={**ENV_ERRORS, **NAME_ERRORS, "stale_env": 409, "env_deleting": 409},
    ),
    _row(
        "DELETE",
        "/{id}",
        delete,
        "Destroy an environment",
        (Answer(status=200, body=Done, description="every host has confirmed"), _LATER),
        query=Later,
        errors={**ENV_ERRORS, **CALL_ERRORS},
        streaming=True,
        ends=True,
    ),
    *(
        _row(
            "POST",
            f"/{{id}}/{word}",
            handler,
            f"{word.capitalize()} an environment",
            (Answer(status=200, body=Done, description="every machine is"), _LATER),
            query=Later,
            errors={**ENV_ERRORS, **CALL_ERRORS, "env_deleting": 409},
            streaming=True,
            ends=word == "stop",
        )
        for word, handler in (("stop", stop), ("start", start))
    ),
)
