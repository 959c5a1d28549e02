"""What the document of pools says of itself."""

from borough.http.openapi.documents import Document
from borough.http.pages import About, describe
from borough.http.pools.routes import OPERATIONS

UNDER = "/pools"
"""Where the document is served beside the town's."""

ABOUT = About(
    title="Borough: pools",
    description="Machines of the fleet that come and go with the town's work. Served by `borough up`.",
    tags={
        "public": "This document.",
        "pools": "One pool a role: how its machines are made, how many there may be, and why so many are there.",
    },
    path_parameters={"role": "The role whose work the pool's machines take."},
    is_home=False,
)


def pools_document() -> Document:
    """Return the document of the routes of pools."""
    return describe(OPERATIONS, ABOUT)
