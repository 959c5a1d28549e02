"""Where one may go: a name is judged, then resolved here, and only the addresses that were judged are connected to."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from borough.auth.machines import SERVER_NAME, SERVER_PORT
from borough.core.errors import Invalid
from borough.governance.hosts import Address, canonical_host, is_metadata, may_connect, names_itself, reaches
from borough.governance.manifests import Network

Resolve = Callable[[str, int], Awaitable[tuple[Address, ...]]]
"""Returns the addresses of a name; raises ``OSError`` when there are none."""

MOST_ADDRESSES = 8
RESOLVED_WITHIN_S = 10.0
_LOOK_UPS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A way that is open: exactly these addresses may be connected to."""

    host: str
    """In its one spelling."""
    port: int
    rule: str
    """What of the policy lets it pass."""
    addresses: tuple[Address, ...]
    connect_to: int | None = None
    """The port of those addresses, where it is another: it leads to Borough's own server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlace:
    """Where Borough's server is, seen from here."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A way that is closed."""

    host: str
    port: int
    code: str
    """``network_denied``, ``not_resolved`` or ``invalid_host``."""
    reason: str


class Judge:
    """Judges names and addresses by a network policy. One for all boxes and for the daemon's own requests."""

    def __init__(self, resolve: Resolve | None = None, *, server: ServerPlace | None = None) -> None:
        """``resolve`` is the system's resolver unless another is given; ``server`` is what ``borough.internal`` is."""
        self._resolve = resolve or SystemResolver()
        self._server = server

    async def judge(self, network: Network, host: str, port: int, *, local_too: bool = False) -> Passage | Refusal:
        """Return the way to ``host``, or why there is none.

        ``local_too``: the caller may use the local network whatever its names resolve to.
        """
        try:
            name = canonical_host(host)
        except Invalid as error:
            return Refusal(host=host[:255], port=port, code="invalid_host", reason=error.message)
        if name == SERVER_NAME:
            return await self._to_server(network, port)
        rule = reaches(network.policy, network.allowlist, host=name, port=port)
        if rule is None:
            why = f"the network policy {network.policy.value!r} does not reach {name}:{port}"
            return Refusal(host=name, port=port, code="network_denied", reason=why)
        try:
            found = await self._addresses(name, port)
        except (OSError, TimeoutError):
            return Refusal(host=name, port=port, code="not_resolved", reason=f"{name} has no address")
        fit = tuple(
            address
            for address in found[:MOST_ADDRESSES]
            if may_connect(network.policy, network.allowlist, address=address, port=port, local_too=local_too)
        )
        if not fit:
            return Refusal(host=name, port=port, code="network_denied", reason=_why_not(name, found))
        return Passage(host=name, port=port, rule=rule, addresses=fit)

    async def _to_server(self, network: Network, port: int) -> Passage | Refusal:
        """Return the way to Borough's own server: only a line that names it and nothing else opens it."""
        refused = Refusal(host=SERVER_NAME, port=port, code="network_denied", reason="")
        rule = names_itself(network.policy, network.allowlist, host=SERVER_NAME, port=port)
        if rule is None or port != SERVER_PORT:
            why = f"no line of the list is {SERVER_NAME}:{SERVER_PORT}" if rule is None else f"only port {SERVER_PORT}"
            return replace(refused, reason=f"{SERVER_NAME}:{port} is not reached: {why}")
        if self._server is None:
            return replace(refused, code="not_resolved", reason=f"this host was not told where {SERVER_NAME} is")
        try:
            found = await self._addresses(self._server.host, self._server.port)
        except (OSError, TimeoutError):
            return replace(refused, code="not_resolved", reason=f"{self._server.host} has no address")
        return Passage(
            host=SERVER_NAME, port=port, rule=rule, addresses=found[:MOST_ADDRESSES], connect_to=self._server.port
        )

    async def _addresses(self, name: str, port: int) -> tuple[Address, ...]:
        try:
            return (ipaddress.ip_address(name.strip("[]")),)
        except ValueError:
            async with asyncio.timeout(RESOLVED_WITHIN_S):
                return await self._resolve(name, port)


class SystemResolver:
    """Asks the system's resolver, in threads of its own: slow names do not hold up anybody else's work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=_LOOK_UPS_AT_ONCE, thread_name_prefix="resolver")

    async def __call__(self, name: str, port: int) -> tuple[Address, ...]:
        """Return the addresses of ``name``, in the system's order."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name, port)


def _look_up(name: str, port: int) -> tuple[Address, ...]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    # A zone (fe80::1%eth0) belongs to one interface of this machine; the address is judged without it.
    return tuple(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _why_not(name: str, found: tuple[Address, ...]) -> str:
    if not found:
        return f"{name} has no address"
    shown = ", ".join(str(address) for address in found[:3])
    if any(is_metadata(address) for address in found):
        return f"{name} is {shown}, where a cloud hands out credentials; only a line with that very address allows it"
    return f"{name} is {shown}, an address of an inside network that the policy does not name"
