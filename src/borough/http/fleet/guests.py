"""The inside of a machine: ``/api/vms/{id}/exec``, files, logs, snapshots, stats. The controller and the host daemon
serve the same rows; what differs is who answers (``call.state.guests``).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta, Struct

from borough.core.errors import BoroughError, Invalid
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.services.guests import only
from borough.fleet.vms import Vm, VmId
from borough.http.fleet import guest_wire, render, wire
from borough.http.fleet.common import GUEST_ERRORS, Flag, is_set, vm_id
from borough.http.fleet.dialect import Done, Envelope, data
from borough.http.operations import Access, Answer, Call, Operation, Response
from borough.http.streams import ByteStream, begun

AT_ONCE_S = 1.0
"""How long a stream waits for its first part, so that what fails at once is refused with a status."""
MOST_FILE_BYTES = 64 * 1_073_741_824
_LINES = "application/x-ndjson"
_BYTES = "application/octet-stream"
_FILE_ERRORS = {**GUEST_ERRORS, "file_not_found": 404, "invalid_file_path": 400, "not_a_file": 409, "no_space": 507}
_SNAPSHOT_ERRORS = {**GUEST_ERRORS, "snapshot_not_found": 404, "invalid_name": 400}


class Inside(Protocol):
    """Who answers for the inside of machines: the controller's service, or the host itself."""

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]: ...
    def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]: ...
    def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]: ...
    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]: ...
    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]: ...
    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int: ...
    async def stats(self, vm_id: VmId) -> MachineStats: ...
    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo: ...
    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]: ...
    async def restore(self, vm_id: VmId, name: str) -> Vm: ...
    async def delete_snapshot(self, vm_id: VmId, name: str) -> None: ...


class FileQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    tar: Flag = "0"


class FolderQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(min_length=1, max_length=4096)] = "/"


class LogsQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    offset: Annotated[int, Meta(ge=0)] = 0
    follow: Flag = "0"


async def execute(call: Call) -> Response:
    order, inside = exec_order(call.body), inside_of(call)
    chunks = inside.execute(vm_id(call), order, only(call.body.stdin))
    lines = await begun(_lines(chunks), within_s=AT_ONCE_S)
    return ByteStream(_told(lines), ends=call.disconnected, media_type=_LINES)


def exec_order(body: guest_wire.Exec) -> ExecOrder:
    """Return the command that a body asks for.

    Raises:
        Invalid: there is none, or two (``invalid_command``).
    """
    if bool(body.argv) == (body.command is not None):
        raise Invalid(
            "a command is either argv or command",
            code="invalid_command",
            resolution='send {"argv": ["ls", "/"]} or {"command": "ls / | wc -l"}',
        )
    argv = tuple(body.argv) or ("/bin/sh", "-c", body.command or "")
    return ExecOrder(
        argv=argv,
        env=body.env,
        cwd=body.cwd,
        user=body.user,
        tty=None if body.tty is None else (body.tty.rows, body.tty.cols),
        timeout_s=body.timeout_s,
    )


async def logs(call: Call) -> Response:
    query: LogsQuery = call.query
    parts = inside_of(call).logs(vm_id(call), offset=query.offset, follow=is_set(query.follow))
    return ByteStream(await begun(parts, within_s=AT_ONCE_S), ends=call.disconnected, media_type=_BYTES)


async def read(call: Call) -> Response:
    query: FileQuery = call.query
    parts = inside_of(call).read(vm_id(call), query.path, as_tar=is_set(query.tar))
    media_type = "application/x-tar" if is_set(query.tar) else _BYTES
    return ByteStream(await begun(parts, within_s=AT_ONCE_S), ends=call.disconnected, media_type=media_type)


async def write(call: Call) -> object:
    query: FileQuery = call.query
    count = await inside_of(call).write(vm_id(call), query.path, call.body, from_tar=is_set(query.tar))
    return data(guest_wire.Written(bytes=count))


async def listing(call: Call) -> object:
    return data([render.file_view(entry) for entry in await inside_of(call).listing(vm_id(call), call.query.path)])


async def stats(call: Call) -> object:
    return data(render.stats_view(await inside_of(call).stats(vm_id(call))))


async def snapshots(call: Call) -> object:
    return data([render.snapshot_view(each) for each in await inside_of(call).snapshots(vm_id(call))])


async def snapshot(call: Call) -> object:
    return data(render.snapshot_view(await inside_of(call).snapshot(vm_id(call), call.body.name)))


async def restore(call: Call) -> object:
    vm = await inside_of(call).restore(vm_id(call), call.path["name"])
    return data(render.vm_view(vm, strict=call.state.strict))


async def delete_snapshot(call: Call) -> object:
    await inside_of(call).delete_snapshot(vm_id(call), call.path["name"])
    return Done()


def inside_of(call: Call) -> Inside:
    """Return who answers for the inside of machines."""
    inside: Inside = call.state.guests
    return inside


async def _lines(chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield _line(render.chunk_view(chunk))
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


async def _told(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield lines; what goes wrong when the answer is under way is the last of them."""
    try:
        async for line in lines:
            yield line
    except BoroughError as error:
        yield _line(guest_wire.Chunk(stream="error", error=error.message, code=error.code))
    except asyncio.CancelledError:
        raise
    finally:
        close = getattr(lines, "aclose", None)
        if close is not None:
            await close()


def _line(chunk: guest_wire.Chunk) -> bytes:
    return msgspec.json.encode(chunk) + b"\n"


def _row(method: str, path: str, handler: object, summary: str, answer: Answer, **more: object) -> Operation:
    errors = more.pop("errors", GUEST_ERRORS)
    return Operation(
        method=method,
        path=f"/api/vms/{{id}}{path}",
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.CALLER,
        summary=summary,
        tag="guests",
        answers=(answer,),
        errors=errors,  # type: ignore[arg-type]  # a table of errors
        streaming=True,
        **more,  # type: ignore[arg-type]  # fields of a row
    )


def _json(body: object, description: str) -> Answer:
    return Answer(status=200, body=body, description=description)


OPERATIONS = (
    _row(
        "POST",
        "/exec",
        execute,
        "Run a command inside",
        Answer(status=200, body=bytes, description="what it prints, a JSON object a line", content_type=_LINES),
        body=guest_wire.Exec,
        errors={**GUEST_ERRORS, "invalid_command": 400},
        secret_answer=True,
    ),
    _row(
        "GET",
        "/logs",
        logs,
        "What the machine printed: its console",
        Answer(status=200, body=bytes, description="from the offset on", content_type=_BYTES),
        query=LogsQuery,
    ),
    _row(
        "GET",
        "/files",
        read,
        "Read a file, or a folder as a tar archive",
        Answer(status=200, body=bytes, description="its content", content_type=_BYTES),
        query=FileQuery,
        errors=_FILE_ERRORS,
    ),
    _row(
        "PUT",
        "/files",
        write,
        "Write a file, or unpack a tar archive into a folder",
        _json(Envelope[guest_wire.Written], "it is written"),
        query=FileQuery,
        body=bytes,
        body_optional=True,
        body_streamed=True,
        body_limit_bytes=MOST_FILE_BYTES,
        errors=_FILE_ERRORS,
    ),
    _row(
        "GET",
        "/files/list",
        listing,
        "List a folder",
        _json(Envelope[list[guest_wire.FileEntry]], "its names"),
        query=FolderQuery,
        errors=_FILE_ERRORS,
    ),
    _row("GET", "/stats", stats, "What the machine uses now", _json(Envelope[guest_wire.Stats], "what can be told")),
    _row(
        "GET",
        "/snapshots",
        snapshots,
        "The states that can be returned to",
        _json(Envelope[list[guest_wire.Snapshot]], "oldest first"),
    ),
    _row(
        "POST",
        "/snapshots",
        snapshot,
        "Keep the present state under a name",
        Answer(status=201, body=Envelope[guest_wire.Snapshot], description="it is kept"),
        body=guest_wire.TakeSnapshot,
        errors=_SNAPSHOT_ERRORS,
    ),
    _row(
        "POST",
        "/snapshots/{name}/restore",
        restore,
        "Return to a snapshot",
        _json(Envelope[wire.Vm], "the machine as it is now"),
        errors=_SNAPSHOT_ERRORS,
    ),
    _row(
        "DELETE",
        "/snapshots/{name}",
        delete_snapshot,
        "Forget a snapshot",
        _json(Done, "it is gone"),
        errors=_SNAPSHOT_ERRORS,
    ),
)
