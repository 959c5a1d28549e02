"""Agent CLIs: what their names stand for, as argument lists that no shell ever sees."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from borough.config.sections import AfterExitZero, AgentCliSection, InputMode
from borough.core.errors import Invalid

FALLBACK_CLI = "claude"
_MINI_MODEL = "gpt-5.4-mini"
_MINI_NAME = "codex-mini"
_KNOWN_FIRST_WORDS: dict[tuple[str, ...], str] = {
    ("claude",): "claude",
    ("auggie",): "auggie",
    ("aider",): "aider",
    ("gemini",): "gemini",
    ("cursor",): "cursor",
    ("gh", "copilot"): "copilot",
    ("codex",): "codex",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCli:
    """A program that does tasks, ready to be run."""

    name: str
    argv: tuple[str, ...]
    input: InputMode = "stdin"
    input_option: str = ""
    """Goes before the file's path or the prompt, where the program wants an option for it."""
    workdir: str | None = None
    """Relative to the town's folder; ``None``: that folder itself."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    on_exit_zero: AfterExitZero = "complete"
    timeout_s: int | None = None
    """``None``: the town's ``agent.task_timeout_secs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The CLI that a text stands for, and what its writer should be told, if anything."""

    cli: AgentCli
    note: str | None = None


def _preset(name: str, command: str, *, mode: InputMode = "stdin", option: str = "") -> AgentCli:
    return AgentCli(name=name, argv=tuple(shlex.split(command)), input=mode, input_option=option)


_CODEX = "codex exec --dangerously-bypass-approvals-and-sandbox"

PRESETS: Mapping[str, AgentCli] = {
    cli.name: cli
    for cli in (
        _preset("claude", "claude --print --dangerously-skip-permissions"),
        _preset("auggie", "auggie --print", mode="file", option="--instruction-file"),
        _preset("codex", _CODEX),
        _preset(_MINI_NAME, f'{_CODEX} -m {_MINI_MODEL} -c model_reasoning_effort="medium"'),
        # aider's documentation ("Scripting aider"): --message takes the instruction as its argument.
        _preset("aider", "aider --yes --no-auto-commits --message", mode="argument"),
        _preset("gemini", "gemini"),
        _preset("copilot", "gh copilot"),
        _preset("cursor", "cursor"),
    )
}
"""The commands of the reference, each with the way in which it really takes its prompt."""


def split_command(command: str | list[str], *, where: str) -> tuple[str, ...]:
    """Return the words of ``command``, as a POSIX shell would split them, expanding nothing.

    Raises:
        Invalid: it has no words, or a quote is not closed (``invalid_command``). ``where`` says whose it is.
    """
    try:
        words = tuple(shlex.split(command) if isinstance(command, str) else command)
    except ValueError as error:
        raise Invalid(
            f"{where}: the command {command!r} cannot be split into words: {str(error).lower()}",
            code="invalid_command",
            resolution="close the quote, or write the command as a list of words",
        ) from None
    if not words or not words[0] or any("\0" in word for word in words):
        raise Invalid(
            f"{where}: the command is empty or holds a zero byte",
            code="invalid_command",
            resolution="name a program, for example command = 'claude --print'",
        )
    return words


def merged(sections: Mapping[str, AgentCliSection], *, file: str) -> dict[str, AgentCli]:
    """Return the presets under what the file says of them, and the file's own CLIs."""
    clis = dict(PRESETS)
    for name, section in sections.items():
        where = f"{file}: agent_clis.{name}"
        clis[name] = _overlaid(clis.get(name), name, section, where=where)
    return clis


def _overlaid(preset: AgentCli | None, name: str, section: AgentCliSection, *, where: str) -> AgentCli:
    if preset is None and section.command is None:
        raise Invalid(
            f"{where}: the setting 'command' is missing",
            code="invalid_setting",
            resolution="say which program to run, for example command = 'my-agent --print'",
        )
    command = () if section.command is None else split_command(section.command, where=where)
    base = preset or named(name, command)
    return replace(
        base,
        argv=command or base.argv,
        input=section.input or base.input,
        input_option=_option(section, base),
        workdir=section.workdir if section.workdir is not None else base.workdir,
        env={**base.env, **section.env},
        on_exit_zero=section.on_exit_zero or base.on_exit_zero,
        timeout_s=section.timeout_secs or base.timeout_s,
    )


def _option(section: AgentCliSection, base: AgentCli) -> str:
    if section.input_option is not None:
        return section.input_option
    return "" if section.input not in {None, base.input} else base.input_option


def named(name: str, argv: tuple[str, ...]) -> AgentCli:
    """Return a CLI called ``name`` of ``argv`` that takes its prompt as the preset of the same program does."""
    known = PRESETS.get(_known_name(argv) or "")
    if known is None or (known.input == "argument" and argv[-1] != known.argv[-1]):
        return AgentCli(name=name, argv=argv)
    return AgentCli(name=name, argv=argv, input=known.input, input_option=known.input_option)


def _known_name(argv: tuple[str, ...]) -> str | None:
    for words, name in _KNOWN_FIRST_WORDS.items():
        if argv[: len(words)] == words:
            return _MINI_NAME if name == "codex" and _MINI_MODEL in argv else name
    return None


def resolve(text: str, clis: Mapping[str, AgentCli]) -> Resolved:
    """Return what ``text`` stands for: a name, a preset's whole command, a known program, or a command of its own.

    Raises:
        Invalid: it is none of them and no command either (``invalid_command``).
    """
    wanted = text.strip() or FALLBACK_CLI
    if wanted in clis:
        return Resolved(cli=clis[wanted])
    argv = split_command(wanted, where="the agent CLI")
    for cli in (*clis.values(), *PRESETS.values()):
        if cli.argv == argv:
            return Resolved(cli=clis.get(cli.name, cli))
    known = _known_name(argv)
    if known is not None and known in clis:
        return Resolved(
            cli=clis[known],
            note=f"{wanted!r} runs as the agent CLI {known!r}: {shlex.join(clis[known].argv)}; to run exactly what "
            f"was written, give it a name of its own under [agent_clis.<name>]",
        )
    return Resolved(cli=named(argv[0], argv))


def run_argv(cli: AgentCli, *, prompt: str, prompt_file: Path) -> tuple[str, ...]:
    """Return the whole argument list of one run; what goes to stdin is the caller's business."""
    if cli.input == "stdin":
        return cli.argv
    option = (cli.input_option,) if cli.input_option else ()
    return (*cli.argv, *option, str(prompt_file) if cli.input == "file" else prompt)
