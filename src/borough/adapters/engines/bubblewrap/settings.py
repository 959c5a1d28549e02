"""What boxes on this machine are made with; one value, given by whoever puts the program together."""

from dataclasses import dataclass, field
from pathlib import Path

from borough.adapters.engines.bubblewrap.limits import BoxLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSettings:
    """Where boxes keep their things, and what they may have."""

    state: Path
    """A private folder: logs and ends of runs, workspaces, the keeper's socket."""
    secret_places: tuple[str, ...] = ()
    """Further paths of the host that no box ever sees: the daemon's data folder, the operators' socket."""
    sdk: Path | None = None
    """The folder ``borough/agent``, which agents in Python import."""
    limits: BoxLimits = field(default_factory=BoxLimits)
    use_cgroups: bool = True
    use_landlock: bool = True

    @property
    def hidden(self) -> tuple[str, ...]:
        """All paths that no box ever sees, besides the system's own."""
        return (str(self.state), *self.secret_places)

    @property
    def boxes(self) -> Path:
        """The folder with one folder for each agent, and in it one for each run."""
        return self.state / "boxes"
