"""``borough evidence``: what was done, with the proof of it, as one file."""

import shutil
from pathlib import Path
from typing import Final

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.output import output
from borough.cli.session import connect
from borough.client.urls import segment

_HERE: Final = "borough.cli.borough_evidence"

evidence = LazyGroup(
    "evidence",
    help="What was done, with the proof of it, as one file: export.",
    example="borough evidence export coder -o coder.evidence\nborough verify coder.evidence",
    table={"export": (f"{_HERE}:export", "Write the evidence of a run or an agent into a file.")},
)


@command("export", example="borough evidence export 3f2a91c0 -o run.evidence")
@click.argument("thing")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Where it is written.",
)
def export(*, thing: str, path: Path) -> None:
    """Write the evidence of a run or an agent into a file.

    THING is a run or an agent, by its id, its name, or the first characters of its id. 'borough verify' verifies the
    file.
    """
    with (
        connect(start=False) as server,
        server.download(f"/v1/evidence/{segment(thing)}") as stream,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(stream, file)
    size = path.stat().st_size
    told = {"file": str(path), "bytes": size}
    output().show(told, lambda: output().line(f"{path}: {size} bytes; verify it: borough verify {path}"))
