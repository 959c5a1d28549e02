"""What the dashboard's document says of itself."""

from borough.http.openapi.documents import Document
from borough.http.pages import About, describe
from borough.http.web.routes import OPERATIONS

ABOUT = About(
    title="Borough: the dashboard",
    description="The page that `borough up` serves, and how its user signs in.",
    tags={
        "page": "The page and its files; they are open, what they show is not.",
        "sessions": "How the operator's browser is let in, and leaves.",
        "public": "This document.",
    },
    path_parameters={"name": "A file's name, with a digest of what is in it."},
    is_home=False,
)


def dashboard_document() -> Document:
    """Return the document of what the dashboard adds to a server."""
    return describe(OPERATIONS, ABOUT)
