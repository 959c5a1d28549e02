"""Machines of the host: ``/api/vms``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from borough.core.errors import Invalid
from borough.fleet.engines import Capability, Engine
from borough.fleet.names import check_name
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import Origin, Vm, VmId, vm_spec
from borough.http import sse
from borough.http.fleet import render
from borough.http.fleet.common import GUEST_ERRORS, NAME_ERRORS, SPEC_ERRORS, VM_ERRORS, egress_lines, vm_id
from borough.http.fleet.dialect import Done, Envelope, data
from borough.http.fleet.wire import CreatedVm
from borough.http.fleet.wire import Vm as VmView
from borough.http.host import wire
from borough.http.operations import Access, Answer, Call, Operation, Response
from borough.http.streams import begun

_AT_ONCE_S = 1.0
_ENGINE_ERRORS = {"engine_failed": 500, "create_failed": 500, "not_yet_removed": 500, "engine_missing": 422}
_ERRORS = {**GUEST_ERRORS, **_ENGINE_ERRORS}


async def create(call: Call) -> object:
    vm = await call.state.host.create(_order(call.body))
    return data(CreatedVm(vm=render.vm_view(vm, strict=call.state.strict)))


async def all_vms(call: Call) -> object:
    return data([render.vm_view(vm, strict=call.state.strict) for vm in await call.state.host.machines()])


async def changes(call: Call) -> Response:
    told = await begun(_changed(call.state.host.changes()), within_s=_AT_ONCE_S)
    return sse.EventStream(told, ends=call.disconnected)


async def _changed(told: AsyncGenerator[VmId | None, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(told):
        async for vm_id in told:
            yield sse.encode_comment() if vm_id is None else sse.encode_event(msgspec.json.encode({"vm_id": vm_id}))


async def one(call: Call) -> object:
    return data(render.vm_view(await call.state.host.machine(vm_id(call)), strict=call.state.strict))


async def destroy(call: Call) -> object:
    await call.state.host.destroy(vm_id(call))
    return Done()


async def stop(call: Call) -> object:
    return _moved(call, await call.state.host.stop(vm_id(call)))


async def start(call: Call) -> object:
    return _moved(call, await call.state.host.start(vm_id(call)))


async def pause(call: Call) -> object:
    return _moved(call, await call.state.host.pause(vm_id(call)))


def _moved(call: Call, vm: Vm) -> object:
    return Done() if call.state.strict else data(render.vm_view(vm, strict=False))


def _order(body: wire.CreateVm) -> CreateOrder:
    origin = body.snapshot_of
    return CreateOrder(
        vm_id=VmId(check_name(body.vm_id, what="a machine")),
        env_id=check_name(body.env_id, what="an environment"),
        spec=vm_spec(
            image=body.image,
            engine=Engine(body.engine),
            cpu=body.cpu,
            mem_mib=body.mem,
            disk_mib=body.disk,
            ports=tuple(body.ports),
            ssh_keys=tuple(body.ssh_keys),
            deny_outgoing=body.deny_outgoing,
            egress_allowlist=egress_lines(body.egress_allowlist),
            command=tuple(body.command),
            env=body.env,
            required=frozenset(_capabilities(body.required)),
            origin=None if origin is None else Origin(vm_id=VmId(origin.vm_id), snapshot=origin.name),
        ),
        private_network=body.private_network,
    )


def _capabilities(names: list[str]) -> list[Capability]:
    try:
        return [Capability(name) for name in names]
    except ValueError as error:
        raise Invalid(str(error), code="unknown_capability", resolution="see the offers of /api/info") from None


def _act(word: str, handler: object, summary: str) -> Operation:
    return Operation(
        method="POST",
        path=f"/api/vms/{{id}}/{word}",
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.CALLER,
        summary=summary,
        tag="machines",
        answers=(Answer(status=200, body=Envelope[VmView], description="the machine as it is now"),),
        errors=_ERRORS,
        streaming=True,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/vms",
        handler=create,
        access=Access.CALLER,
        summary="Create a VM",
        tag="machines",
        body=wire.CreateVm,
        answers=(
            Answer(status=201, body=Envelope[CreatedVm], description="it runs; the same order again is the same"),
        ),
        errors={
            **NAME_ERRORS,
            **SPEC_ERRORS,
            **_ENGINE_ERRORS,
            "vm_not_found": 404,
            "snapshot_not_found": 404,
            "not_possible": 409,
            "image_missing": 422,
            "image_not_found": 422,
            "vm_exists": 409,
            "vm_deleted": 409,
            "no_room": 409,
            "addresses_exhausted": 409,
            "ports_exhausted": 409,
        },
        streaming=True,
        secret_answer=True,
    ),
    Operation(
        method="GET",
        path="/api/vms",
        handler=all_vms,
        access=Access.CALLER,
        summary="List VMs",
        tag="machines",
        answers=(Answer(status=200, body=Envelope[list[VmView]], description="oldest first"),),
    ),
    Operation(
        method="GET",
        path="/api/changes",
        handler=changes,
        access=Access.CALLER,
        summary="Machines that change without being asked to, as it happens",
        tag="machines",
        answers=(
            Answer(
                status=200, body=str, description='`{"vm_id": "…"}`, an event each', content_type="text/event-stream"
            ),
        ),
        errors={"too_many_listeners": 503},
        streaming=True,
    ),
    Operation(
        method="GET",
        path="/api/vms/{id}",
        handler=one,
        access=Access.CALLER,
        summary="VM details",
        tag="machines",
        answers=(Answer(status=200, body=Envelope[VmView], description="as it is kept"),),
        errors=VM_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/api/vms/{id}",
        handler=destroy,
        access=Access.CALLER,
        summary="Destroy a VM",
        tag="machines",
        answers=(Answer(status=200, body=Done, description="nothing of it is left, or it was not known"),),
        errors=_ERRORS,
        streaming=True,
    ),
    _act("stop", stop, "Stop a VM"),
    _act("start", start, "Start a VM"),
    _act("pause", pause, "Freeze a VM"),
)
