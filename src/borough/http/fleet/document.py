"""What the controller's document says of itself, and the wire that it shares with the host daemon's."""

from borough.http.fleet.dialect import Refusal
from borough.http.fleet.routes import OPERATIONS
from borough.http.openapi.documents import Document
from borough.http.openapi.wire import Wire
from borough.http.pages import About, describe

WIRE = Wire(
    error=Refusal,
    error_type="application/json",
    security={
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "The fleet's key, or the operator's own credential. Without a key everybody is let in.",
        }
    },
)

ABOUT = About(
    title="Borough: the fleet",
    description="Environments of machines over many hosts. Memory and disk are in MiB, moments in seconds since 1970.",
    tags={
        "public": "What anybody may ask: is it alive, is it ready, and the pages.",
        "fleet": "The fleet as a whole.",
        "hosts": "Where machines live: registered, cordoned, drained, given up.",
        "environments": "Machines that belong together, with an owner and an end.",
        "machines": "One machine: shown, stopped, started, paused, destroyed.",
        "guests": "The inside of a machine: commands, files, logs, snapshots.",
        "images": "What machines are made from, and where it is.",
        "history": "What is under way, and what happened.",
    },
    path_parameters={"id": "An id, as the lists have it.", "name": "A name."},
    wire=WIRE,
    is_home=False,
)


def fleet_document() -> Document:
    """Return the document of everything that ``tt-ctl`` serves."""
    return describe(OPERATIONS, ABOUT)
