"""``borough``: everything on this machine, a worker anywhere, the demonstration, the checks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from borough.cli.commands import Described, LazyGroup, command, invocation
from borough.cli.errors import run

if TYPE_CHECKING:
    from borough.config.sections import BoxMode

_HERE: Final = "borough.cli.borough"

program = LazyGroup(
    "borough",
    help="Run, house and govern fleets of AI agents on your own machines.",
    example="borough up\nborough run 'say hello' -- echo hello\nborough demo",
    table={
        "up": (f"{_HERE}:up", "Serve everything on this machine; makes a town where there is none."),
        "run": ("borough.cli.run:run", "Run a task in a machine of its own, and show what it prints."),
        "runs": ("borough.cli.runs:runs", "List runs, newest first."),
        "show": ("borough.cli.runs:show", "Show all that is known of a run."),
        "logs": ("borough.cli.runs:logs", "Print what a run's command has printed."),
        "patch": ("borough.cli.runs:patch", "Print the files that a run changed, as a patch."),
        "retry": ("borough.cli.runs:retry", "Begin a run that is over once more, in a fresh machine."),
        "cancel": ("borough.cli.runs:cancel", "End a run that is no longer wanted."),
        "kill": ("borough.cli.runs:kill", "Take all power from a run or an agent: its key, its machine, its lease."),
        "open": (f"{_HERE}:open_dashboard", "Print an address that lets a browser into the dashboard, once."),
        "attention": (
            "borough.cli.borough_attention:attention",
            "Show what needs a person, what happens if nobody acts, and what settles it.",
        ),
        "events": (
            "borough.cli.borough_events:events",
            "Show what happened in all contexts, and follow it as it happens.",
        ),
        "evidence": (
            "borough.cli.borough_evidence:evidence",
            "What was done, with the proof of it, as one file: export.",
        ),
        "explain": (
            "borough.cli.borough_explain:explain",
            "Say why a thing stands where it stands, since when, and what comes next.",
        ),
        "worker": (f"{_HERE}:worker", "Serve one agent, anywhere HTTP reaches the server."),
        "pool": ("borough.cli.pools:pool", "Let machines come and go with the work of a role."),
        "demo": (
            "borough.cli.demo:demo",
            "Let three governed agents work in machines of their own, kill one, and verify the evidence.",
        ),
        "demo-town": (
            "borough.cli.demo_of_town:demo_town",
            "Let three agents do twenty real tasks, kill one, and watch.",
        ),
        "demo-fleet": ("borough.cli.demo_fleet:demo_fleet", "Let three hosts carry environments, kill two, and watch."),
        "doctor": ("borough.cli.doctor:doctor", "Check what works here, and say what mends the rest."),
        "verify": (
            "borough.cli.verify:verify",
            "Verify an export of the ledger, or evidence, with nothing but its public key.",
        ),
        "bench": (f"{_HERE}:bench", "Say how the headline figures are measured."),
    },
)


@command("up", example="borough up --port 8080")
@click.option("-b", "--bind", metavar="IP", help="The address to listen on.  [default: from tinytown.toml]")
@click.option("-p", "--port", type=click.IntRange(0, 65_535), help="The port.  [default: from tinytown.toml]")
@click.option(
    "--image-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Base images of this machine as a host.  [default: .tt/fleet/images]",
)
@click.option("--change-network", is_flag=True, help="As root: make bridge and firewall for machines on this host.")
@click.option(
    "--worker-box",
    type=click.Choice(["auto", "require", "off"]),
    help="Whether workers of this machine start in boxes.  [default: from tinytown.toml]",
)
def up(
    *, bind: str | None, port: int | None, image_dir: Path | None, change_network: bool, worker_box: "BoxMode | None"
) -> int:
    """Serve everything on this machine; makes a town where there is none. Where it is served already, says so."""
    import os

    from borough.cli.output import say
    from borough.client.discovery import find_town
    from borough.observability.lean import load_lean

    load_lean()
    from borough.config.fleet import Housing
    from borough.config.global_file import register_town
    from borough.config.town_file import create_town
    from borough.server import serve

    folder = Path(invocation().town)
    town = find_town(folder)
    if town is None:
        made = create_town(folder)
        register_town(os.environ, made.root, made.name)
        town = made.root
        say(f"made a town: {made.name} in {town}")
    elif _is_up(town, bind, port):
        return 0
    housing = Housing(image_dir=image_dir, change_network=change_network)
    return serve(
        town,
        bind=bind,
        port=port,
        verbose=invocation().verbose,
        housing=housing,
        worker_box=worker_box,
        greet=_greet,
    )


def _is_up(town: Path, bind: str | None, port: int | None) -> bool:
    """Tell of the server that serves all of ``town`` already, where one does at the place that is asked for.

    Raises:
        NoServer: it runs and does not answer.
    """
    import os
    from urllib.parse import urlsplit

    from borough.cli.output import say
    from borough.client.discovery import operated, read_record
    from borough.client.http import Client

    record = read_record(town)
    if record is None or record.socket is None or not record.fleet:
        return False
    place = urlsplit(record.address)
    if bind not in (None, place.hostname) or port not in (None, place.port):
        return False
    Client(operated(town, record.address, os.environ)).get("/ready")
    say(f"{town} is served already, by pid {record.pid} at {record.address}  (tt stop --server ends that)")
    say(f"dashboard: {record.address}/  (borough open prints an address that lets you in)")
    return True


def _greet(url: str, sign_in_address: Callable[[], str]) -> None:
    """Tell where the dashboard is; the address that lets its reader in is for a terminal alone, never for a log."""
    from borough.cli.output import say

    if sys.stderr.isatty():
        say(f"dashboard: {sign_in_address()}  (lets you in once, within ten minutes; another: borough open)")
    else:
        say(f"dashboard: {url}/  (borough open prints an address that lets you in)")


@command("open", example="borough open")
def open_dashboard() -> None:
    """Print an address that lets a browser into the dashboard, once, within ten minutes.

    It is as good as the operator's own credential until it is used: give it to nobody.
    """
    from borough.cli.output import output
    from borough.cli.session import connect

    with connect(start=False) as client:
        made = client.post("/v1/sign-in-codes")
        address = f"{client.url}/#code={made['code']}"
    document = {"address": address, "expires_in_secs": made["expires_in_secs"]}
    output().show(document, lambda: output().line(address))


class _Through(Described):
    """Hands everything to the worker's own parser, ``--help`` too."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.obj = list(args)
        return []


@click.command(
    "worker",
    cls=_Through,
    example="borough worker --server http://127.0.0.1:8080 --name ada --token-file token",
    add_help_option=False,
)
@click.pass_obj
def worker(arguments: list[str]) -> int:
    """Serve one agent, anywhere HTTP reaches the server."""
    from borough.worker.__main__ import main as serve_agent

    return serve_agent(arguments)


@command("bench", example="make bench")
def bench() -> None:
    """Say how the headline figures are measured."""
    from borough.cli.output import output

    command_line = "make bench"
    document = {"command": command_line, "where": "a checkout of the sources"}
    output().show(document, lambda: output().line(f"in a checkout of the sources, run: {command_line}"))


def main() -> None:
    """Run ``borough``."""
    sys.exit(run(program, "borough"))


if __name__ == "__main__":
    main()
