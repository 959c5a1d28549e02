"""Borough runs, houses and governs fleets of AI agents on your own Linux machines."""

from importlib.metadata import version

__version__ = version("borough")
