"""Borough runs, houses and governs fleets of AI agents on your own Linux machines."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from borough.sandbox import AsyncRun, AsyncSandbox, Run, Sandbox

__all__ = ["AsyncRun", "AsyncSandbox", "Run", "Sandbox"]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: ``import borough`` itself costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - most programs never ask

    return getattr(import_module("borough.sandbox"), name)
