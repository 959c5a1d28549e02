"""``townhall``: serves the town's REST surface until it is told to end."""

import sys
from pathlib import Path
from typing import Final

import click

from borough.cli.errors import run

_HELP: Final = {"help_option_names": ["-h", "--help"]}


@click.group(invoke_without_command=True, context_settings=_HELP, epilog="Example: townhall rest --port 8080")
@click.option("-t", "--town", type=click.Path(path_type=Path), default=Path(), help="The town's folder.  [default: .]")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.pass_context
def program(context: click.Context, *, town: Path, verbose: bool) -> int:
    """Serve a town over HTTP; without a subcommand as 'rest'."""
    context.obj = (town, verbose)
    return 0 if context.invoked_subcommand else serve_town(town, bind=None, port=None, verbose=verbose)


@program.command("rest", epilog="Example: townhall rest --bind 127.0.0.1 --port 8080")
@click.option("-b", "--bind", metavar="IP", help="The address to listen on.  [default: from tinytown.toml]")
@click.option("-p", "--port", type=click.IntRange(0, 65_535), help="The port.  [default: from tinytown.toml]")
@click.pass_obj
def rest(told: tuple[Path, bool], *, bind: str | None, port: int | None) -> int:
    """Serve the REST API."""
    town, verbose = told
    return serve_town(town, bind=bind, port=port, verbose=verbose)


def serve_town(town: Path, *, bind: str | None, port: int | None, verbose: bool) -> int:
    """Serve the town at ``town`` until a signal ends it; return the exit code."""
    from borough.observability.lean import load_lean

    load_lean()
    from borough.server import serve

    return serve(town, bind=bind, port=port, verbose=verbose)


def main() -> None:
    """Run ``townhall``."""
    sys.exit(run(program, "townhall"))


if __name__ == "__main__":
    main()
