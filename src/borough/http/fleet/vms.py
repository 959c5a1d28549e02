"""Machines: ``/api/vms``."""

from borough.fleet.vms import Action
from borough.http.fleet import render, wire
from borough.http.fleet.common import GUEST_ERRORS, VM_ERRORS, PageQuery, page_request, paged, vm_id
from borough.http.fleet.dialect import Done, Envelope, data
from borough.http.operations import Access, Answer, Call, Operation

_VM = Envelope[wire.Vm]


async def all_vms(call: Call) -> object:
    found = await call.state.fleet.vms(page_request(call.query.limit, call.query.cursor))
    return paged(
        [render.vm_view(vm, strict=call.state.strict) for vm in found.items], found.after, limit=call.query.limit
    )


async def one(call: Call) -> object:
    return data(render.vm_view(await call.state.machines.get(vm_id(call)), strict=call.state.strict))


async def stop(call: Call) -> object:
    return await _act(call, Action.STOP)


async def start(call: Call) -> object:
    return await _act(call, Action.START)


async def pause(call: Call) -> object:
    return await _act(call, Action.PAUSE)


async def delete(call: Call) -> object:
    await call.state.machines.delete(vm_id(call))
    return Done()


async def _act(call: Call, action: Action) -> object:
    return data(render.vm_view(await call.state.machines.act(vm_id(call), action), strict=call.state.strict))


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/vms",
        handler=all_vms,
        access=Access.CALLER,
        summary="List machines",
        tag="machines",
        query=PageQuery,
        answers=(Answer(status=200, body=Envelope[list[wire.Vm]], description="by id"),),
    ),
    Operation(
        method="GET",
        path="/api/vms/{id}",
        handler=one,
        access=Access.CALLER,
        summary="Single VM details",
        tag="machines",
        answers=(Answer(status=200, body=_VM, description="as it is known; its host is not asked"),),
        errors=VM_ERRORS,
    ),
    *(
        Operation(
            method="POST",
            path=f"/api/vms/{{id}}/{word}",
            handler=handler,
            access=Access.CALLER,
            summary=summary,
            tag="machines",
            answers=(Answer(status=200, body=_VM, description="the machine as it is now"),),
            errors=GUEST_ERRORS,
            streaming=True,
            ends=word != "start",
        )
        for word, handler, summary in (
            ("stop", stop, "Shut a machine down and keep its disk"),
            ("start", start, "Start a stopped machine, or let a paused one go on"),
            ("pause", pause, "Freeze a machine"),
        )
    ),
    Operation(
        method="DELETE",
        path="/api/vms/{id}",
        handler=delete,
        access=Access.CALLER,
        summary="Destroy one machine of an environment",
        tag="machines",
        answers=(Answer(status=200, body=Done, description="its host has confirmed, or it was not known"),),
        errors=GUEST_ERRORS,
        streaming=True,
        ends=True,
    ),
)
