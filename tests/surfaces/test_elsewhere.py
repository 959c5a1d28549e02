"""What a program says of what another one serves: it is so, and what it names is there."""

import re
from pathlib import Path

import click
import pytest

from borough.cli import ash, borough, tt
from borough.http.elsewhere import SERVED, elsewhere
from borough.http.routes import Routes

DOCUMENTS = Path(__file__).parents[2] / "docs" / "openapi"
PROGRAMS = {"tt": tt.program, "borough": borough.program, "ash": ash.program}


@pytest.mark.parametrize("path", sorted(set(SERVED) - {"/"}))
def test_what_is_to_be_had_elsewhere_is_a_route_and_its_way_out_are_commands(path: str) -> None:
    served = [
        each for document in DOCUMENTS.glob("*.yaml") for each in re.findall(r"(?m)^  (/\S*):", document.read_text())
    ]
    assert [each for each in served if each == path or each.startswith(f"{path}/")], "no program serves it"
    named = re.findall(r"'((?:tt|ash|borough) [^']+)'", SERVED[path].resolution)
    assert named[0] == "borough up"
    for words in named:
        program, *rest = words.split()
        group: click.Command | None = PROGRAMS[program]
        for word in rest:
            if isinstance(group, click.Group):
                group = group.get_command(click.Context(group), word)
                assert group is not None, words


def test_a_program_that_serves_a_part_of_it_says_nothing_of_elsewhere() -> None:
    routes: Routes[str] = Routes()
    routes.add("GET", "/v1/runs", "all")
    routes.add("GET", "/v1/explain/{thing}", "one")
    assert (
        elsewhere("/v1/runs/a/b/c", routes) is elsewhere("/v1/explain", routes) is elsewhere("/v1/no", routes) is None
    )
    assert elsewhere("/v1/pools/painter", routes) is SERVED["/v1/pools"]
    assert elsewhere("/", routes) is SERVED["/"]
