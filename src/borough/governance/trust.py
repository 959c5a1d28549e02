"""Trust levels: how much is believed of an agent, strictly ordered. What each may hold is in ``ceilings``."""

from enum import StrEnum


class TrustLevel(StrEnum):
    """From third-party code to the root orchestrator."""

    UNTRUSTED = "untrusted"
    SANDBOXED = "sandboxed"
    TRUSTED = "trusted"
    PRIVILEGED = "privileged"

    @property
    def rank(self) -> int:
        """Return the place in the order, 0 for the lowest."""
        return _RANKS[self]

    def at_least(self, other: "TrustLevel") -> bool:
        """Tell whether this level is ``other`` or above."""
        return self.rank >= other.rank


_RANKS = {level: rank for rank, level in enumerate(TrustLevel)}


def lower_of(one: TrustLevel, other: TrustLevel) -> TrustLevel:
    """Return the level that believes less."""
    return one if other.at_least(one) else other
