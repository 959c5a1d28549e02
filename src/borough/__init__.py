"""Borough runs, houses and governs fleets of AI agents on your own Linux machines."""
