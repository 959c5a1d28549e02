"""What the host daemon's document says of itself."""

from dataclasses import replace

from borough.http.fleet.document import WIRE
from borough.http.host.routes import OPERATIONS
from borough.http.openapi.documents import Document
from borough.http.pages import About, describe

ABOUT = About(
    title="Borough: one host of the fleet",
    description="Machines of one host. Memory and disk are in MiB, moments in seconds since 1970.",
    tags={
        "public": "What anybody may ask: is it alive, is it ready, and the pages.",
        "host": "The host itself: what it has and offers, and how a controller becomes known to it.",
        "images": "What machines are made from.",
        "machines": "Machines: made, shown, stopped, started, paused, destroyed.",
        "guests": "The inside of a machine: commands, files, logs, snapshots.",
    },
    path_parameters={"id": "A machine's id.", "name": "A name."},
    wire=replace(WIRE, keeps_answers=False),
    is_home=False,
)


def host_document() -> Document:
    """Return the document of everything that ``tt-agent`` serves."""
    return describe(OPERATIONS, ABOUT)
