"""How batches reach a server or a cluster, on valkey-py."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from libvalkey import pack_command
from valkey.asyncio import Valkey, ValkeyCluster
from valkey.asyncio.cluster import ClusterNode
from valkey.asyncio.connection import AbstractConnection, ConnectionPool, UnixDomainSocketConnection
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import ResponseError

from borough.adapters.valkey.addresses import Address
from borough.adapters.valkey.batches import Words

_OWN_CALLBACKS = {"CLUSTER SLOTS", "COMMAND"}
"""Answers that the cluster client itself reads to find its way."""


class Connections(Protocol):
    """The connections of one client."""

    async def send(self, batch: Sequence[Words]) -> Sequence[Any]:
        """Return one raw answer a call, error replies as exceptions; raises ``batches.LOST`` as a whole."""

    async def own(self) -> Valkey:
        """Return a client with connections of its own, without a time limit on reading, where the town's keys are."""

    async def close(self) -> None:
        """Close every connection that ``send`` uses."""


class ServerConnections:
    """One server, over TCP, TLS or a Unix socket."""

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self._address = address
        self._pool = ConnectionPool(connection_class=address.kind, **connection_options(address, timeout_s=timeout_s))

    async def send(self, batch: Sequence[Words]) -> Sequence[Any]:
        connection: AbstractConnection = await self._pool.get_connection("batch")  # type: ignore[no-untyped-call] # valkey-py
        try:
            # Packed in C: a fifth of what the client's own packing costs.
            await connection.send_packed_command([pack_command(words) for words in batch])
            return [await _answer(connection) for _ in batch]
        except BaseException:
            # Answers that nobody reads must not be taken for those of the next batch.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def own(self) -> Valkey:
        return single_client(self._address, timeout_s=None)

    async def close(self) -> None:
        await self._pool.aclose()


class ClusterConnections:
    """A cluster. All keys of a town share one hash tag, so one of its nodes serves everything we send."""

    def __init__(self, address: Address, *, prefix: str, timeout_s: float) -> None:
        self._address = address
        self._prefix = prefix
        options = {**connection_options(address, timeout_s=timeout_s), "ssl": address.is_encrypted}
        # Batches repeat calls themselves; the cluster client is only to find its way.
        self._cluster = ValkeyCluster(
            **options, connection_error_retry_attempts=0, cluster_error_retry_attempts=1, reinitialize_steps=1
        )
        # Answers stay raw, as a single server gives them; the dictionary is the one that all nodes share.
        for name in set(self._cluster.response_callbacks) - _OWN_CALLBACKS:
            del self._cluster.response_callbacks[name]

    async def send(self, batch: Sequence[Words]) -> Sequence[Any]:
        node = await self._node()
        pipeline = self._cluster.pipeline()
        for words in batch:
            _ = pipeline.execute_command(*words, target_nodes=[node])  # chained, not awaited
        return await pipeline.execute(raise_on_error=False)

    async def own(self) -> Valkey:
        node = await self._node()
        options = {**self._address.options, "host": node.host, "port": node.port}
        address = Address(shown=self._address.shown, kind=self._address.kind, options=options)
        return single_client(address, timeout_s=None)

    async def close(self) -> None:
        await self._cluster.aclose()

    async def _node(self) -> ClusterNode:
        _ = await self._cluster.initialize()
        node = self._cluster.get_node_from_key(self._prefix)
        if node is None:  # only ever for replicas
            raise LookupError(self._prefix)
        return node


def single_client(address: Address, *, timeout_s: float | None) -> Valkey:
    """Return a plain client of ``address``, without repetition of its own."""
    pool = ConnectionPool(connection_class=address.kind, **connection_options(address, timeout_s=timeout_s))
    return Valkey.from_pool(pool)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def connection_options(address: Address, *, timeout_s: float | None) -> Mapping[str, Any]:
    """Return what valkey-py is told about each connection; what the URL says wins."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": 5.0,
        "retry": Retry(NoBackoff(), 0),
        "lib_name": None,  # two more round trips a connection
        "lib_version": None,
    }
    if address.kind is not UnixDomainSocketConnection:
        options["socket_keepalive"] = True
    return {**options, **address.options}
