"""The town's connection to its store: server-side functions by name, everything else by words."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import ResponseError, ValkeyError

from borough.adapters.valkey.addresses import Address, TlsFiles, parse_address
from borough.adapters.valkey.batches import LOST, Batches, Bounds, Word
from borough.adapters.valkey.connections import ClusterConnections, Connections, ServerConnections, single_client
from borough.adapters.valkey.failures import Remedy, away, final, remedy_for
from borough.core.errors import Unavailable

OLDEST_VERSION = (7, 0)
DEFAULT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server said about itself when we connected."""

    name: str
    """``valkey`` or ``redis``."""
    version: str
    is_cluster: bool
    durability: str


class Client:
    """One town's view of its store; every key starts with ``prefix``. Made by ``connect``."""

    def __init__(
        self, connections: Connections, *, prefix: str, library: str, place: str, facts: ServerFacts, bounds: Bounds
    ) -> None:
        self.prefix = prefix
        self.place = place
        """Where the store is, fit to be shown."""
        self.facts = facts
        self._connections = connections
        self._library = library
        self._batches = Batches(connections.send, load_library=self._load_library, place=place, bounds=bounds)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know about this store."""
        if self.facts.durability == "always":
            return ()
        if self.facts.durability == "unknown":
            return (f"the store at {self.place} does not tell whether acknowledged writes survive a crash",)
        weak = f"the store at {self.place} may lose acknowledged writes when its machine fails"
        return (f"{weak} (durability {self.facts.durability}): set appendonly yes and appendfsync always there",)

    async def call(self, function: str, *arguments: Word) -> Any:
        """Return what the server-side ``function`` answers. The call may reach the server more than once.

        Raises:
            Unavailable: the store does not answer, or takes no writes.
            ResponseError: the function failed; that is a defect.
        """
        return await self._batches.call(("FCALL", function, 1, self.prefix, *arguments))

    async def read(self, function: str, *arguments: Word) -> Any:
        """Return what ``function``, which writes nothing, answers. Raises as ``call`` does."""
        return await self._batches.call(("FCALL_RO", function, 1, self.prefix, *arguments))

    async def command(self, *words: Word) -> Any:
        """Return the raw answer to a command that may be repeated. Raises as ``call`` does."""
        return await self._batches.call(words)

    async def ping(self) -> float:
        """Return the round trip in seconds; raises ``Unavailable``."""
        began = time.perf_counter()
        await self.command("PING")
        return time.perf_counter() - began

    async def durability(self) -> str:
        """Return what an acknowledged write survives, as the server says now: ``always`` (a power loss),
        ``everysec`` (all but the last second), ``none``; ``unknown`` where the server does not tell.
        """
        try:
            only = await self.command("CONFIG", "GET", "appendonly")
            fsync = await self.command("CONFIG", "GET", "appendfsync")
        except (ResponseError, Unavailable) as error:
            if isinstance(error, Unavailable) and error.code != "store_refused":
                raise
            return "unknown"
        return durability_of({**_pairs(only), **_pairs(fsync)})

    async def own_connection(self) -> Valkey:
        """Return a valkey-py client with a connection of its own, for commands that block; the caller closes it.

        Reading from it has no time limit. Raises ``batches.LOST`` when a cluster does not say where the town is.
        """
        return await self._connections.own()

    async def close(self) -> None:
        """Give up what waits and close the connections."""
        await self._batches.close()
        await self._connections.close()

    async def _load_library(self) -> None:
        """Load the functions again; not through the batches, whose calls may be waiting for just this."""
        for answer in await self._connections.send([("FUNCTION", "LOAD", "REPLACE", self._library)]):
            if isinstance(answer, BaseException):
                raise answer


async def connect(
    url: str,
    *,
    town: str,
    library: str,
    tls: TlsFiles | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    bounds: Bounds | None = None,
) -> Client:
    """Return a client of the store at ``url`` in which ``library`` (source that starts ``#!lua name=…``) is loaded.

    A server that is still loading its data is waited for as long as a call is repeated (``bounds.retry_s``).

    Raises:
        Unavailable: always this, with the URL (its password hidden) and what to do; the ``code`` is one of
            ``store_url_invalid``, ``store_unavailable``, ``store_refused``, ``store_too_old``, ``store_unsuitable``.
    """
    bounds = bounds or Bounds()
    address = parse_address(url, tls=tls)
    facts = await _ask_for_facts(address, timeout_s=timeout_s, patience_s=bounds.retry_s)
    prefix = f"tt:{{{town}}}:" if facts.is_cluster else f"tt:{town}:"
    connections: Connections = (
        ClusterConnections(address, prefix=prefix, timeout_s=timeout_s)
        if facts.is_cluster
        else ServerConnections(address, timeout_s=timeout_s)
    )
    client = Client(connections, prefix=prefix, library=library, place=address.shown, facts=facts, bounds=bounds)
    try:
        await _ensure_library(client, library)
    except BaseException:
        await client.close()
        raise
    return client


def library_name(source: str) -> str:
    """Return the name in the first line of a function library; raises ``ValueError`` when there is none."""
    found = re.match(r"#!lua\s+name=(\w+)", source)
    if found is None:
        raise ValueError("a function library starts with the line '#!lua name=NAME'")
    return found[1]


def durability_of(settings: Mapping[str, str]) -> str:
    """Return the durability that ``appendonly`` and ``appendfsync`` give; ``unknown`` when one is not told."""
    if "appendonly" not in settings or "appendfsync" not in settings:
        return "unknown"
    if settings["appendonly"] != "yes":
        return "none"
    return settings["appendfsync"] if settings["appendfsync"] in {"always", "everysec"} else "none"


async def _ask_for_facts(address: Address, *, timeout_s: float, patience_s: float) -> ServerFacts:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    probe = single_client(address, timeout_s=timeout_s)
    try:
        while True:
            try:
                return await _facts(probe, address)
            except LOST as error:
                is_loading = "loading" in str(error).lower()
                if not is_loading or loop.time() >= deadline:
                    raise _connect_failure(address, error) from error
            await asyncio.sleep(0.05)
    finally:
        await probe.aclose()


async def _facts(probe: Valkey, address: Address) -> ServerFacts:
    await probe.ping()
    info: dict[str, Any] = {**await probe.info("server"), **await probe.info("cluster")}
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    if _version(version) < OLDEST_VERSION:
        raise Unavailable(
            f"the store at {address.shown} is too old",
            code="store_too_old",
            reason=f"it says that it is version {version or 'unknown'}",
            resolution="use Valkey, or Redis 7.0 or later",
        )
    is_cluster = str(info.get("cluster_enabled", 0)) == "1"
    if is_cluster and address.is_socket:
        raise Unavailable(
            f"the store at {address.shown} is a node of a cluster",
            code="store_unsuitable",
            reason="the other nodes cannot be reached through a Unix socket",
            resolution="name the cluster's TCP address: redis://host:port",
        )
    return ServerFacts(
        name="valkey" if "valkey_version" in info else "redis",
        version=version,
        is_cluster=is_cluster,
        durability=await _durability(probe),
    )


async def _durability(probe: Valkey) -> str:
    try:
        return durability_of({**await probe.config_get("appendonly"), **await probe.config_get("appendfsync")})
    except ResponseError:  # hosted servers forbid CONFIG
        return "unknown"


async def _ensure_library(client: Client, source: str) -> None:
    """Load the functions unless exactly these are there already."""
    name = library_name(source)
    try:
        loaded = await client.command("FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE")
        if not any(_pairs(entry).get("library_code") == source for entry in loaded):
            await client.command("FUNCTION", "LOAD", "REPLACE", source)
    except ResponseError as error:
        raise Unavailable(
            f"the store at {client.place} did not take the town's functions",
            code="store_unsuitable",
            reason=str(error),
            resolution="use Valkey, or Redis 7.0 or later, with functions enabled",
        ) from error


def _connect_failure(address: Address, error: BaseException) -> BaseException:
    if remedy_for(error) is Remedy.REPEAT:
        return away(address.shown, error)
    failure = final(address.shown, error)
    if isinstance(failure, ValkeyError):
        return Unavailable(
            f"the store at {address.shown} cannot be used",
            code="store_unsuitable",
            reason=str(failure),
            resolution="name a Valkey, or a Redis 7.0 or later",
        )
    return failure


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _pairs(flat: Sequence[Any]) -> dict[str, str]:
    """Return a flat reply of names and values as a mapping; values that are no text are left out."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs if isinstance(value, bytes)}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
