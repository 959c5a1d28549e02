"""What is started for an attempt: arguments and environment. Pure functions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from borough.worker.prompt import pointer

MAX_ARGUMENT_BYTES = 131_071
"""The longest single argument that Linux takes (execve(2), MAX_ARG_STRLEN), without its final zero byte."""
PROMPT_FILE_SLOT = "{prompt_file}"
PROMPT_SLOT = "{prompt}"


class Input(StrEnum):
    """How an agent CLI gets its prompt."""

    STDIN = "stdin"
    FILE = "file"
    """As a path: in place of ``{prompt_file}`` in its arguments, or as the last one."""
    ARGUMENT = "argument"
    """As text: in place of ``{prompt}``, or as the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the CLI's environment tells it, so that it can use ``tt`` in its own name."""

    agent_id: str
    agent_name: str
    incarnation: int
    task_id: str
    epoch: int
    server_url: str
    token_file: Path
    programs: Path
    """The folder of ``tt``: searched after everything else on ``PATH``, where an environment of its own is not."""


def arguments(argv: Sequence[str], input_mode: Input, *, text: str, file: Path) -> list[str]:
    """Return the argument list; ``file`` holds ``text``."""
    if input_mode is Input.STDIN:
        return list(argv)
    if input_mode is Input.FILE:
        return _filled(argv, PROMPT_FILE_SLOT, str(file))
    fits = len(text.encode()) <= MAX_ARGUMENT_BYTES and "\0" not in text
    return _filled(argv, PROMPT_SLOT, text if fits else pointer(str(file)))


def environment(
    inherited: Mapping[str, str], preset: Mapping[str, str], around: Surroundings, *, owner: str, attempt: str
) -> dict[str, str]:
    """Return the CLI's environment. ``owner`` and ``attempt`` name the variables by which its processes are found.

    ``inherited`` has no secrets of ours any more; the CLI's own (keys of model providers, say) stay. A preset cannot
    replace what identifies the agent.
    """
    given = {**inherited, **preset}
    return {
        **given,
        "PATH": os.pathsep.join(filter(None, (given.get("PATH", os.defpath), str(around.programs)))),
        "TINYTOWN_AGENT_ID": around.agent_id,
        "TINYTOWN_AGENT_NAME": around.agent_name,
        "TINYTOWN_TASK_ID": around.task_id,
        "TINYTOWN_SERVER": around.server_url,
        "TINYTOWN_TOKEN_FILE": str(around.token_file),
        owner: f"{around.agent_id}:{around.incarnation}",
        attempt: f"{around.task_id}:{around.epoch}",
    }


def _filled(argv: Sequence[str], slot: str, value: str) -> list[str]:
    if slot in argv:
        return [value if argument == slot else argument for argument in argv]
    return [*argv, value]
