"""Hosts: ``/api/hosts``."""

from msgspec import Struct

from borough.fleet.services.drains import Leaving
from borough.http.fleet import render, wire
from borough.http.fleet.common import CALL_ERRORS, HOST_ERRORS, NAME_ERRORS, Later, accepted, is_set, operation_id
from borough.http.fleet.dialect import Done, Envelope, data
from borough.http.operations import Access, Answer, Call, Operation


class CopyImage(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which image is to be brought to the host."""

    name: str


async def register(call: Call) -> object:
    host = await call.state.hosts.register(call.body.addr, token=call.body.token)
    return data(render.host_view(host, strict=call.state.strict))


async def all_hosts(call: Call) -> object:
    return data([render.host_view(host, strict=call.state.strict) for host in await call.state.hosts.all()])


async def one(call: Call) -> object:
    return data(render.host_view(await call.state.hosts.get(call.path["id"]), strict=call.state.strict))


async def remove(call: Call) -> object:
    await call.state.hosts.remove(call.path["id"])
    return Done()


async def cordon(call: Call) -> object:
    host = await call.state.hosts.cordon(call.path["id"], cordoned=True)
    return data(render.host_view(host, strict=call.state.strict))


async def uncordon(call: Call) -> object:
    host = await call.state.hosts.cordon(call.path["id"], cordoned=False)
    return data(render.host_view(host, strict=call.state.strict))


async def drain(call: Call) -> object:
    body: wire.Drain = call.body
    host, left, operation = await call.state.drains.begin(
        call.path["id"],
        leaving=Leaving(body.machines),
        timeout_s=body.timeout,
        operation_id=operation_id(call),
    )
    if is_set(call.query.later):
        return accepted(operation)
    strict = call.state.strict
    vms = [render.vm_view(vm, strict=strict) for vm in left]
    return data(
        wire.Drained(host=render.host_view(host, strict=strict), vms=vms, operation_id=operation.id)
    )  # fmt: skip


async def detach(call: Call) -> object:
    lost = await call.state.hosts.detach(call.path["id"])
    return data([render.vm_view(vm, strict=call.state.strict) for vm in lost])


async def label(call: Call) -> object:
    host = await call.state.hosts.label(call.path["id"], call.body.labels)
    return data(render.host_view(host, strict=call.state.strict))


async def copy_image(call: Call) -> object:
    image = await call.state.images.copy(call.body.name, to=call.path["id"])
    return data(wire.Image(name=image.name, host_id=call.path["id"], digest=image.digest))


def _host(status: int, description: str) -> tuple[Answer, ...]:
    return (Answer(status=status, body=Envelope[wire.Host], description=description),)


def _act(word: str, handler: object, summary: str) -> Operation:
    return Operation(
        method="POST",
        path=f"/api/hosts/{{id}}/{word}",
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.CALLER,
        summary=summary,
        tag="hosts",
        answers=_host(200, "the host as it is now"),
        errors=HOST_ERRORS,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/hosts",
        handler=register,
        access=Access.CALLER,
        summary="Register a host",
        tag="hosts",
        body=wire.RegisterHost,
        answers=_host(201, "it is registered"),
        errors={
            **CALL_ERRORS,
            **NAME_ERRORS,
            "invalid_address": 400,
            "host_bound": 409,
            "too_many_hosts": 409,
            "invalid_join_token": 400,
            "host_speaks_tls": 502,
            "token_refused": 502,
            "token_expired": 502,
        },
        streaming=True,
    ),
    Operation(
        method="GET",
        path="/api/hosts",
        handler=all_hosts,
        access=Access.CALLER,
        summary="List hosts",
        tag="hosts",
        answers=(Answer(status=200, body=Envelope[list[wire.Host]], description="as they were heard last"),),
    ),
    Operation(
        method="GET",
        path="/api/hosts/{id}",
        handler=one,
        access=Access.CALLER,
        summary="Host details",
        tag="hosts",
        answers=_host(200, "as it was heard last"),
        errors=HOST_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/api/hosts/{id}",
        handler=remove,
        access=Access.CALLER,
        summary="Remove a host that has no machines",
        tag="hosts",
        answers=(Answer(status=200, body=Done, description="it is forgotten, or was not known"),),
        errors={"host_in_use": 409},
    ),
    _act("cordon", cordon, "Place nothing new on a host"),
    _act("uncordon", uncordon, "Place machines on a host again"),
    Operation(
        method="POST",
        path="/api/hosts/{id}/drain",
        handler=drain,
        access=Access.CALLER,
        summary="Place nothing new on a host, and wait until nothing is left on it",
        tag="hosts",
        query=Later,
        body=wire.Drain,
        body_optional=True,
        answers=(
            Answer(
                status=200, body=Envelope[wire.Drained], description="it has begun: what is left, and where to wait"
            ),
            Answer(status=202, body=Envelope[wire.Operation], description="with `async=1`: it has begun"),
        ),
        errors={**HOST_ERRORS, "invalid_timeout": 400},
    ),
    Operation(
        method="POST",
        path="/api/hosts/{id}/detach",
        handler=detach,
        access=Access.CALLER,
        summary="Forget a host that is dead, with its machines",
        tag="hosts",
        answers=(Answer(status=200, body=Envelope[list[wire.Vm]], description="the machines that it had"),),
        errors={**HOST_ERRORS, "host_online": 409},
    ),
    Operation(
        method="PUT",
        path="/api/hosts/{id}/labels",
        handler=label,
        access=Access.CALLER,
        summary="Say what a host is",
        tag="hosts",
        body=wire.Labels,
        answers=_host(200, "the host as it is now"),
        errors={**HOST_ERRORS, "invalid_labels": 400},
    ),
    Operation(
        method="POST",
        path="/api/hosts/{id}/images",
        handler=copy_image,
        access=Access.CALLER,
        summary="Bring an image from another host to this one",
        tag="images",
        body=CopyImage,
        answers=(Answer(status=201, body=Envelope[wire.Image], description="it is there"),),
        errors={**HOST_ERRORS, **CALL_ERRORS, "image_not_found": 404, "image_not_brought": 502},
        streaming=True,
    ),
)
