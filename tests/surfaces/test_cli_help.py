"""Every command helps: it says what it does and shows an example, and asking costs next to nothing."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from borough.cli import borough, townhall, tt
from borough.cli.commands import Described, LazyGroup

HEAVY = ("msgspec", "asyncio", "ssl", "http.client", "tomlkit", "valkey", "uvicorn", "starlette", "json")


def walk(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


PROGRAMS = {"tt": tt.program, "borough": borough.program}
COMMANDS = [
    (name, path, command) for name, program in PROGRAMS.items() for path, command in walk(program, ()) if path != ("x",)
]
IDS = [" ".join((name, *path)) for name, path, _ in COMMANDS]


@pytest.mark.parametrize(("name", "path", "command"), COMMANDS, ids=IDS)
def test_every_command_has_help_with_an_example(name: str, path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Described | LazyGroup)
    if path == ("worker",):
        assert command.example.startswith("borough worker")
        return
    shown = CliRunner().invoke(PROGRAMS[name], [*path, "--help"], prog_name=name)
    assert shown.exit_code == 0, shown.output
    assert "Example:" in shown.output
    # Shared commands show their example under one of the two programs' names.
    assert any(program in command.example for program in (f"{name} ", "tt ", "make "))


@pytest.mark.parametrize(("name", "path", "command"), COMMANDS, ids=IDS)
def test_the_table_says_what_the_command_says(name: str, path: tuple[str, ...], command: click.Command) -> None:
    group = PROGRAMS[name]
    for step in path[:-1]:
        found = group.get_command(click.Context(group), step)
        assert isinstance(found, LazyGroup)
        group = found
    told = (command.help or "").splitlines()[0].rstrip(".")
    sentence = group.table[path[-1]][1]
    assert told.startswith(sentence.rstrip(".")) or sentence.startswith(told), (told, sentence)
    assert command.name == path[-1]


def test_every_command_takes_json_and_a_town() -> None:
    for _, path, command in COMMANDS:
        if path == ("worker",):
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--town", "-t", "--no-start"} <= options, path
        (town,) = (parameter for parameter in command.params if "--town" in parameter.opts)
        assert ("-t" in town.opts) == (path != ("exec",)), "there it is a terminal, as everybody expects"


def test_all_words_of_the_reference_are_there() -> None:
    words = (
        "bootstrap init spawn list assign status start stop reset kill interrupt resume close wait prune task inbox "
        "send conductor plan sync save restore config history events recover reclaim restart backlog towns auth "
        "migrate doctor completion dead"
    )
    assert set(words.split()) <= set(tt.program.table)
    assert {name for names in tt.SECTIONS.values() for name in names} == set(tt.COMMANDS)


@pytest.mark.parametrize("module", ["borough.cli.tt", "borough.cli.borough", "borough.cli.townhall"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_townhall_helps_too() -> None:
    for words in (["--help"], ["rest", "--help"]):
        shown = CliRunner().invoke(townhall.program, words, prog_name="townhall")
        assert shown.exit_code == 0
        assert "townhall rest" in shown.output
