"""What a conductor is told and how its CLI is started. Pure functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from borough.cli.text import harmless

_BATCH_WORDS: Final = frozenset({"--print", "exec", "--message"})
"""Words of the presets that make a CLI answer once and leave; a conductor stays for a conversation."""
_AS_FILE: Final[Mapping[str, str]] = {"auggie": "--instruction-file", "aider": "--message-file"}
_AS_ARGUMENT: Final = frozenset({"claude", "codex"})


def conductor_command(argv: Sequence[str], *, file: Path, text: str) -> tuple[list[str], bool]:
    """Return the command of a CLI that leads, and whether it is to read ``file`` on standard input."""
    program = Path(argv[0]).name
    words = [word for word in argv if word not in _BATCH_WORDS] if program in _AS_ARGUMENT | set(_AS_FILE) else [*argv]
    if program in _AS_FILE:
        return [*words, _AS_FILE[program], str(file)], False
    if program in _AS_ARGUMENT:
        return [*words, text], False
    return words, True


def context_text(status: Mapping[str, Any], url: str) -> str:
    """Return what the conductor needs to know of the town."""
    agents = "\n".join(
        f"- {harmless(agent['label'])}: {agent['state'].lower()}, {agent['inbox_len']} waiting"
        + (f", works on: {harmless(agent['current_scope'])[:120]}" if agent["current_scope"] else "")
        for agent in status["agents"]
    )
    tasks = ", ".join(f"{count} {state}" for state, count in (status.get("tasks") or {}).items() if count)
    return f"""# You lead the town {status["name"]}

Its server is at {url}. You give work to agents, watch it and answer their questions; they do it.

## Agents

{agents or "- none yet"}

## Tasks

{tasks or "none yet"}

## Commands

- `tt spawn NAME --role ROLE` starts an agent; `tt list` shows them; `tt close NAME` lets one finish and leave.
- `tt assign NAME "TASK"` gives work to one; `tt backlog add "TASK" --role ROLE` to whichever fits.
- `tt status --tasks`, `tt task list`, `tt task show ID`, `tt task log ID` show where it stands.
- `tt task explain ID` says why something waits or failed; `tt dead list` shows what nobody could do.
- `tt inbox supervisor` holds what agents tell you; `tt send NAME "TEXT" --info` answers.
- Every command takes --json and --help.
"""
