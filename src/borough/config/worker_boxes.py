"""Which boxes the workers of this machine get, and what of the user's home is shown in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from borough.config.environment import text
from borough.config.sections import AgentSection, BoxMode
from borough.core.errors import Invalid

VARIABLE = "BOROUGH_WORKER_BOX"
MODES: tuple[BoxMode, ...] = get_args(BoxMode)
HOME_WRITE = (
    "~/.claude", "~/.claude.json", "~/.config/claude", "~/.augment", "~/.codex", "~/.aider", "~/.aider.conf.yml",
    "~/.gemini", "~/.copilot", "~/.config/gh", "~/.config/github-copilot", "~/.cursor", "~/.config/cursor",
)  # fmt: skip
"""Where the agent CLIs that have presets keep their settings, sessions and credentials."""
HOME_SHOW = (
    "~/.gitconfig", "~/.config/git", "~/bin", "~/.local/bin", "~/.local/lib", "~/.local/share/claude",
    "~/.local/share/cursor-agent", "~/.local/share/pipx", "~/.local/share/uv", "~/.local/share/mise",
    "~/.local/share/fnm", "~/.local/share/pnpm", "~/.local/pipx", "~/.nvm", "~/.volta", "~/.bun", "~/.deno",
    "~/.npm-global", "~/.cargo/bin", "~/.rustup", "~/.pyenv", "~/.rbenv", "~/.asdf", "~/.sdkman", "~/go/bin",
)  # fmt: skip
"""Where programs are installed for one user, and what git is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBoxing:
    """How workers are confined."""

    mode: BoxMode = "auto"
    home: str = "/"
    show: tuple[str, ...] = ()
    """Absolute paths."""
    write: tuple[str, ...] = ()


def worker_boxing(section: AgentSection, *, root: Path, environ: Mapping[str, str]) -> WorkerBoxing:
    """Return what file and environment say.

    Raises:
        Invalid: the variable is no mode (``invalid_environment``).
    """
    told = text(environ, VARIABLE)
    if told is not None and told not in MODES:
        raise Invalid(
            f"the environment variable {VARIABLE} is {told!r}",
            code="invalid_environment",
            reason=f"it has to be one of {', '.join(MODES)}",
            resolution=f"correct or unset {VARIABLE}",
        )
    home = text(environ, "HOME") or str(Path("~").expanduser())

    def placed(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{home}/{path[2:]}" if path.startswith("~/") else str(root / path) for path in paths)

    return WorkerBoxing(
        mode=told or section.box,
        home=home,
        show=placed((*(HOME_SHOW if section.box_home else ()), *section.box_show)),
        write=placed((*(HOME_WRITE if section.box_home else ()), *section.box_write)),
    )
