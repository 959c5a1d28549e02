"""Images of the host: ``/api/images``."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from borough.core.clock import utc_now
from borough.fleet.engines import Engine
from borough.fleet.images import Image, ImageForm
from borough.http.fleet.common import Flag, is_set
from borough.http.fleet.dialect import Envelope, data
from borough.http.fleet.render import seconds
from borough.http.host import wire
from borough.http.operations import Access, Answer, Call, Operation, Response
from borough.http.streams import ByteStream, begun

MOST_IMAGE_BYTES = 1024 * 1_073_741_824
_AT_ONCE_S = 1.0


class ImagesQuery(Struct, kw_only=True):
    detail: Flag = "0"


class PutQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    form: Literal["qcow2", "raw", "folder", "volume"]
    digest: Annotated[str, Meta(min_length=8, max_length=256)]
    size_bytes: Annotated[int, Meta(ge=0)]
    engine: list[str] = []
    created_at: Annotated[int, Meta(ge=0)] | None = None


async def images(call: Call) -> object:
    found = await call.state.host.images()
    if is_set(call.query.detail):
        return data([image_view(image) for image in found])
    return data([image.name for image in found])


async def content(call: Call) -> Response:
    parts: AsyncIterator[bytes] = call.state.host.image_content(call.path["name"])
    return ByteStream(await begun(parts, within_s=_AT_ONCE_S), ends=call.disconnected)


async def put(call: Call) -> object:
    query: PutQuery = call.query
    image = Image(
        name=call.path["name"],
        form=ImageForm(query.form),
        digest=query.digest,
        size_bytes=query.size_bytes,
        created_at=utc_now() if query.created_at is None else datetime.fromtimestamp(query.created_at, UTC),
        engines=frozenset(engine for engine in Engine if engine.value in query.engine),
    )
    return data(image_view(await call.state.host.put_image(image, call.body)))


def image_view(image: Image) -> wire.HostImage:
    """Return an image of the host."""
    return wire.HostImage(
        name=image.name,
        form=image.form.value,
        digest=image.digest,
        size_bytes=image.size_bytes,
        created_at=seconds(image.created_at),
        engines=sorted(image.engines),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/images",
        handler=images,
        access=Access.CALLER,
        summary="Available images",
        tag="images",
        query=ImagesQuery,
        answers=(
            Answer(
                status=200,
                body=Envelope[list[str | wire.HostImage]],
                description="names; with `detail=1` all that is known",
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/api/images/{name}",
        handler=content,
        access=Access.CALLER,
        summary="An image as it travels between hosts",
        tag="images",
        answers=(Answer(status=200, body=bytes, description="its content", content_type="application/octet-stream"),),
        errors={"image_not_found": 404},
        streaming=True,
    ),
    Operation(
        method="PUT",
        path="/api/images/{name}",
        handler=put,
        access=Access.CALLER,
        summary="Take an image in",
        tag="images",
        query=PutQuery,
        body=bytes,
        body_optional=True,
        body_streamed=True,
        body_limit_bytes=MOST_IMAGE_BYTES,
        answers=(Answer(status=200, body=Envelope[wire.HostImage], description="it is there, whole"),),
        errors={"digest_mismatch": 409, "invalid_name": 400, "disk_full": 507},
        streaming=True,
    ),
)
