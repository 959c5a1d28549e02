"""Which engines a host has: all that could be there are tried at once, and what each found out it keeps itself.

An engine that takes long to say whether it is there (one that boots a guest to find out, for the first time) keeps the
others waiting no longer than its time; one that fails is not there, and why is told.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from borough.core.errors import BoroughError
from borough.fleet.engines import Engine, Offer
from borough.fleet.ports.machines import EngineDriver

PROBED_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """What was found."""

    drivers: Mapping[Engine, EngineDriver] = field(default_factory=dict)
    offers: Sequence[Offer] = ()
    reasons: Mapping[Engine, str] = field(default_factory=dict)
    """Why an engine is not there, where it says more than that it is not installed."""


async def available(candidates: Sequence[EngineDriver], *, within_s: float = PROBED_WITHIN_S) -> Available:
    """Return the engines that are there, in the order in which they were given."""
    found = await asyncio.gather(*(_probed(driver, within_s) for driver in candidates))
    offered = {
        driver.engine: (driver, offer)
        for driver, offer in zip(candidates, found, strict=True)
        if isinstance(offer, Offer)
    }
    return Available(
        drivers={engine: driver for engine, (driver, _) in offered.items()},
        offers=tuple(offer for _, offer in offered.values()),
        reasons={driver.engine: told for driver, told in zip(candidates, found, strict=True) if isinstance(told, str)},
    )


async def _probed(driver: EngineDriver, within_s: float) -> Offer | str | None:
    try:
        async with asyncio.timeout(within_s):
            return await driver.probe()
    except TimeoutError:
        return f"it did not say within {within_s:g} s what it can do"
    except (BoroughError, OSError) as failure:
        return str(failure)
