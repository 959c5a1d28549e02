"""``tt image``: what machines start from."""

from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.fleet_session import LONG_TIMEOUT_S, controller
from borough.cli.output import Output, output
from borough.client.urls import segment
from borough.fleet.images import RECIPES

_HERE: Final = "borough.cli.tt_images"

image = LazyGroup(
    "image",
    help="Images: list them, see the recipes, make one, bring one to a host.",
    example="tt image recipes\ntt image create local-vm\ntt image list",
    table={
        "list": (f"{_HERE}:list_images", "List the images of the fleet."),
        "recipes": (f"{_HERE}:recipes", "List the recipes for images."),
        "create": ("borough.cli.tt_image_create:create", "Make an image from its recipe, on this machine."),
        "copy": (f"{_HERE}:copy", "Bring an image from another host to a host."),
    },
)


@command("list", example="tt image list")
def list_images() -> None:
    """List the images of the fleet."""
    with controller() as fleet:
        found = fleet.get("/api/images")
    output().show({"images": found, "count": len(found)}, lambda: _print_images(output(), found))


def _print_images(out: Output, found: list[dict[str, Any]]) -> None:
    rows = [(each["name"], each["host_id"]) for each in found]
    out.table(("image", "host"), rows, empty="there are no images; see 'tt image recipes'")


@command("recipes", example="tt image recipes")
def recipes() -> None:
    """List the recipes for images."""
    found = [
        {"name": each.name, "engine": each.engine.value, "description": each.description} for each in RECIPES.values()
    ]
    rows = [tuple(each.values()) for each in found]
    output().show(
        {"recipes": found, "count": len(found)},
        lambda: output().table(("name", "engine", "description"), rows, empty="there are none"),
    )


@command("copy", example="tt image copy alpine-cloud rack2")
@click.argument("name")
@click.argument("host_id", metavar="HOST")
def copy(*, name: str, host_id: str) -> None:
    """Bring an image from another host to a host."""
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        found = fleet.post(f"/api/hosts/{segment(host_id)}/images", {"name": name})
    output().show(found, lambda: output().line(f"{found['name']} is on host {found['host_id']}"))
