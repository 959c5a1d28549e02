"""What tools cost and how long they take, since the daemon started."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStatistics:
    """Of one tool."""

    tool: str
    count: int
    cost_micros: int
    mean_ms: float


class Statistics:
    """Sums up calls that were made."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int, float]] = {}

    def note(self, tool: str, *, cost_micros: int, duration_ms: float) -> None:
        """Count one call."""
        count, cost, duration = self._sums.get(tool, (0, 0, 0.0))
        self._sums[tool] = (count + 1, cost + cost_micros, duration + duration_ms)

    def all(self) -> tuple[ToolStatistics, ...]:
        """Return the sums, by tool."""
        return tuple(
            ToolStatistics(tool=tool, count=count, cost_micros=cost, mean_ms=duration / count)
            for tool, (count, cost, duration) in sorted(self._sums.items())
        )
