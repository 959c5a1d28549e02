"""Writes the reference of all commands and of all routes as pages: ``python packaging/references.py FOLDER``."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
import yaml

ROOT: Final = Path(__file__).parent.parent
PROGRAMS: Final = {
    "borough": "borough.cli.borough",
    "tt": "borough.cli.tt",
    "townhall": "borough.cli.townhall",
    "ash": "borough.cli.ash",
    "agentd": "borough.cli.agentd",
    "tt-ctl": "borough.cli.tt_ctl",
    "tt-agent": "borough.cli.tt_agent",
}
METHODS: Final = ("get", "post", "put", "patch", "delete")


def told(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    """Yield the headings and help of a command and of all below it."""
    yield f"{'#' * min(depth, 4)} `{context.command_path}`\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from told(child, click.Context(child, info_name=name, parent=context), depth + 1)


def commands() -> str:
    """Return the page of all commands."""
    parts = ["# Commands\n", "What `--help` says, of every program and every command.\n"]
    for name, module in PROGRAMS.items():
        program: click.Command = import_module(module).program
        parts += told(program, click.Context(program, info_name=name, terminal_width=100), 2)
    return "\n".join(parts)


def routes() -> str:
    """Return the page of all routes."""
    parts = ["# Routes\n", "Every route of the API documents, which say the rest: bodies, answers, errors.\n"]
    for path in sorted((ROOT / "docs" / "openapi").glob("*.yaml")):
        document: dict[str, Any] = yaml.safe_load(path.read_text())
        parts.append(f"## {document['info']['title']}\n\nThe document: [`{path.name}`](openapi/{path.name}).\n")
        parts.append("| route | does | answers |\n|---|---|---|")
        for route, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    summary = item[method].get("summary", "").replace("|", "\\|")
                    answers = ", ".join(item[method]["responses"])
                    parts.append(f"| `{method.upper()} {route}` | {summary} | {answers} |")
        parts.append("")
    return "\n".join(parts)


def main(folder: Path) -> None:
    """Write both pages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "commands.md").write_text(commands())
    (folder / "routes.md").write_text(routes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
