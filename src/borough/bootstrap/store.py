"""The town's store: the server that the settings name, or the embedded one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from borough.adapters.valkey.addresses import TlsFiles
from borough.adapters.valkey.client import Client, connect
from borough.adapters.valkey.embedded import EmbeddedServer
from borough.adapters.valkey.functions import library_source
from borough.config.town import TownSettings

log = structlog.get_logger(__name__)

STORE_FOLDER = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A connected store, and the server behind it if that is ours."""

    client: Client
    embedded: EmbeddedServer | None


@asynccontextmanager
async def open_store(settings: TownSettings) -> AsyncIterator[Store]:
    """Connect to the town's store, starting or adopting the embedded server where no other is named.

    Raises:
        Unavailable: it cannot be reached or started; the message says which and why.
    """
    place = settings.store
    if place.url is not None:
        tls = TlsFiles(
            ca=_text(place.tls_ca_file), certificate=_text(place.tls_cert_file), key=_text(place.tls_key_file)
        )
        async with _connected(place.url, settings.name, tls) as client:
            yield Store(client=client, embedded=None)
        return
    server = EmbeddedServer(settings.state_folder / STORE_FOLDER, binary=place.server_binary, socket=place.socket_path)
    await server.start()
    try:
        async with _connected(server.url, settings.name, None) as client:
            yield Store(client=client, embedded=server)
    finally:
        # A server at this socket that keeps its data elsewhere is not ours to end.
        await server.stop(adopted_too=server.is_ours)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@asynccontextmanager
async def _connected(url: str, town: str, tls: TlsFiles | None) -> AsyncIterator[Client]:
    client = await connect(url, town=town, library=library_source(), tls=tls)
    for warning in client.warnings:
        log.warning("store.warning", told=warning)
    try:
        yield client
    finally:
        await client.close()
