"""Pools: ``/v1/pools…``."""

from dataclasses import dataclass

from borough.auth.scopes import Scope
from borough.core.paging import encode_cursor
from borough.http.operations import Answer, Call, Operation, Reply
from borough.http.pools import render, wire
from borough.http.town.callers import name_of
from borough.http.town.common import PageQuery, page_request
from borough.pools.services.pools import PoolService

_PATH = "/v1/pools/{role}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolsState:
    """What the handlers call."""

    pools: PoolService


async def listing(call: Call) -> object:
    page = await call.state.pools.find(page_request(call.query))
    cursor = None if page.after is None else encode_cursor(page.after)
    body = wire.PoolList(
        pools=[render.pool_view(each) for each in page.items], count=len(page.items), next_cursor=cursor
    )
    links = {} if cursor is None else {"Link": f'</v1/pools?cursor={cursor}>; rel="next"'}
    return Reply(status=200, body=body, headers=links)


async def show(call: Call) -> object:
    return render.pool_detail(await call.state.pools.get(call.path["role"]))


async def put(call: Call) -> object:
    settings = render.settings_of(call.body)
    detail, is_new = await call.state.pools.put(call.path["role"], settings, by=name_of(call))
    return Reply(status=201 if is_new else 200, body=render.pool_view(detail))


async def delete(call: Call) -> object:
    detail = await call.state.pools.delete(call.path["role"], by=name_of(call))
    return Reply(status=202, body=render.pool_view(detail))


_NOT_READY = {"fleet_starting": 503, "fleet_not_ready": 503, "store_unavailable": 503}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/pools",
        handler=listing,
        access=Scope.READ,
        summary="All pools, with their machines and the last step of each",
        tag="pools",
        query=PageQuery,
        answers=(Answer(status=200, body=wire.PoolList, description="by role"),),
        errors={"invalid_cursor": 400, **_NOT_READY},
    ),
    Operation(
        method="GET",
        path=_PATH,
        handler=show,
        access=Scope.READ,
        summary="One pool, with its machines and what was done last and why",
        tag="pools",
        answers=(Answer(status=200, body=wire.PoolDetail, description="the pool"),),
        errors={"pool_not_found": 404, **_NOT_READY},
    ),
    Operation(
        method="PUT",
        path=_PATH,
        handler=put,
        access=Scope.MANAGE,
        summary="Set a pool: make it, or change it",
        description=(
            "What is left out is as usual. Where machines are to be made otherwise, those that are there are replaced: "
            "idle ones now, busy ones when they are done. A pool that drains stays after all."
        ),
        tag="pools",
        body=wire.PoolRequest,
        answers=(
            Answer(status=200, body=wire.PoolView, description="it was there, and is so from now on"),
            Answer(status=201, body=wire.PoolView, description="it is new"),
        ),
        errors={
            "invalid_role": 422,
            "invalid_pool": 422,
            "invalid_name": 422,
            "invalid_size": 422,
            "invalid_command": 422,
            "invalid_manifest": 422,
            "isolation_too_weak": 422,
            **_NOT_READY,
        },
    ),
    Operation(
        method="DELETE",
        path=_PATH,
        handler=delete,
        access=Scope.MANAGE,
        ends=True,
        summary="Delete a pool: its workers finish what they have, its machines go",
        tag="pools",
        answers=(Answer(status=202, body=wire.PoolView, description="it drains; when it is gone, it is not found"),),
        errors={"pool_not_found": 404, "invalid_role": 422, **_NOT_READY},
    ),
)
