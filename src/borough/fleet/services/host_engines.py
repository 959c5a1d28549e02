"""Which engines a host has: all that could be there are asked at once, and asked again as long as they are not.

An engine that boots a guest to find out keeps nobody waiting: it is offered when it has found out. Until then its
machines are neither started nor judged, since nothing that it says of them could be relied on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from borough.core.errors import BoroughError, Invalid
from borough.fleet.engines import Engine, Missing, Offer
from borough.fleet.ports.engines import EngineDriver

log = structlog.get_logger(__name__)

PROBED_WITHIN_S = 60.0
BOOTS_TO_FIND_OUT = frozenset({Engine.QEMU, Engine.FIRECRACKER})
REMEMBERED_WITHIN_S = 1.0
"""How long the start waits for engines that boot a guest: enough for one that remembers what it found out."""
AGAIN_AFTER_S = 60.0

KEPT_BY_OTHERS = frozenset({Engine.DOCKER})
"""Engines that are programs of their own, which come and go."""

Came = Callable[[Engine], Awaitable[None]]
"""Told that an engine is here that was not when the host was opened."""


class HostEngines:
    """The engines of one host. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(
        self,
        drivers: Mapping[Engine, EngineDriver],
        *,
        within_s: float = PROBED_WITHIN_S,
        remembered_within_s: float | None = None,
        again_after_s: float = AGAIN_AFTER_S,
    ) -> None:
        """``drivers`` in the order in which the host tells its engines."""
        self._drivers = dict(drivers)
        self._within_s = within_s
        self._remembered_within_s = REMEMBERED_WITHIN_S if remembered_within_s is None else remembered_within_s
        self._again_after_s = again_after_s
        self._found: dict[Engine, Offer | Missing] = {}
        self._probes: dict[Engine, asyncio.Task[None]] = {}
        self._asked_at: dict[Engine, float] = {}
        self._came: Came | None = None

    @property
    def drivers(self) -> Mapping[Engine, EngineDriver]:
        """Return the driver of every engine that could be here, whether it is or not."""
        return self._drivers

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Return what the engines that are here can do."""
        return tuple(found for engine in self._drivers if isinstance(found := self._found.get(engine), Offer))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return why engines are not offered."""
        return tuple(
            f"engine={engine.value} is not offered: {reason}"
            for engine in self._drivers
            if (reason := self._lacks(engine)) is not None
        )

    def is_known(self, engine: Engine) -> bool:
        """Tell whether an engine has found out what it can do; one that could never be here has."""
        return engine in self._found or engine not in self._drivers

    async def open(self, *, came: Came) -> None:
        """Ask every engine; return when those have answered that need not boot a guest.

        ``came`` is told of those that turn out to be here after that.
        """
        self._probes = {engine: self._ask(engine) for engine in self._drivers}
        quick, slow = _parted(self._probes)
        await asyncio.gather(*quick)
        if slow:
            await asyncio.wait(slow, timeout=self._remembered_within_s)
        self._came = came

    def ask_again(self) -> None:
        """Begin to ask again the engines whose answer may be another by now, each after a while."""
        now = asyncio.get_running_loop().time()
        for engine, found in self._found.items():
            changes = isinstance(found, Missing) or engine in KEPT_BY_OTHERS
            if changes and self._probes[engine].done() and now - self._asked_at[engine] >= self._again_after_s:
                self._probes[engine] = self._ask(engine)

    async def offered(self, engine: Engine) -> EngineDriver:
        """Return the driver of an engine that is here, once that is known.

        Raises:
            Invalid: it is not (``engine_missing``), with why.
        """
        probe = self._probes.get(engine)
        if probe is not None and not self.is_known(engine):
            await asyncio.wait({probe})
        if isinstance(self._found.get(engine), Offer):
            return self._drivers[engine]
        here = ", ".join(offer.engine.value for offer in self.offers) or "none"
        why = self._lacks(engine)
        raise Invalid(
            f"this host has no engine={engine.value}",
            code="engine_missing",
            reason=f"its engines are: {here}" + ("" if why is None else f"; {engine.value}: {why}"),
            resolution="place the machine on another host, or install the engine on this one",
        )

    async def close(self) -> None:
        """Stop asking."""
        for probe in self._probes.values():
            probe.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)

    def _lacks(self, engine: Engine) -> str | None:
        if engine in self._drivers and engine not in self._found:
            return "what it can do here is still being found out"
        found = self._found.get(engine)
        return found.reason if isinstance(found, Missing) else None

    def _ask(self, engine: Engine) -> asyncio.Task[None]:
        self._asked_at[engine] = asyncio.get_running_loop().time()
        return asyncio.create_task(self._probe(engine), name=f"probe {engine.value}")

    async def _probe(self, engine: Engine) -> None:
        before = self._found.get(engine)
        found = await self._answer(engine)
        self._found[engine] = found
        if isinstance(found, Missing):
            if found != before:
                log.info("engine.missing", engine=engine.value, reason=found.reason)
        elif not isinstance(before, Offer):
            log.info("engine.offered", engine=engine.value, version=found.version, acceleration=found.acceleration)
            if self._came is not None:
                await self._came(engine)

    async def _answer(self, engine: Engine) -> Offer | Missing:
        try:
            async with asyncio.timeout(self._within_s):
                return await self._drivers[engine].probe()
        except TimeoutError:
            return Missing(engine=engine, reason=f"it did not say within {self._within_s:g} s what it can do")
        except (BoroughError, OSError) as failure:
            return Missing(engine=engine, reason=str(failure))
        except Exception as failure:
            log.exception("engine.probe_failed", engine=engine.value)
            return Missing(engine=engine, reason=f"an internal error: {type(failure).__name__}")


def _parted(probes: Mapping[Engine, asyncio.Task[None]]) -> tuple[list[asyncio.Task[None]], list[asyncio.Task[None]]]:
    """Return those that answer at once, and those that boot a guest first."""
    quick = [probe for engine, probe in probes.items() if engine not in BOOTS_TO_FIND_OUT]
    return quick, [probe for engine, probe in probes.items() if engine in BOOTS_TO_FIND_OUT]
