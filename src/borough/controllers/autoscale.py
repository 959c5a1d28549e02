"""The loop of pools: look at the work, the machines and the workers, and make each pool as large as it is to be."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from borough.controllers.loops import Controller

SCALE_EVERY = timedelta(seconds=0.5)


def controllers(act: Callable[[], Awaitable[None]], *, every: timedelta = SCALE_EVERY) -> tuple[Controller, ...]:
    """Return the loop of pools; ``act`` passes over all of them."""
    return (Controller(name="autoscale", every=every, act=act),)
