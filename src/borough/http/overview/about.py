"""What the document of the routes over all contexts says of itself."""

from borough.http.openapi.documents import Document
from borough.http.overview.routes import OPERATIONS
from borough.http.pages import About, describe

ABOUT = About(
    title="Borough: all contexts",
    description="What happens, what needs a person, why something stands where it stands, and what proves it.",
    tags={
        "public": "What anybody may ask.",
        "attention": "What needs a person, and what settles it.",
        "evidence": "What was done, with its proof.",
        "figures": "How busy everything was.",
        "explain": "Why something stands where it stands, and where it is.",
        "events": "What happened, and what happens.",
    },
    path_parameters={
        "thing": "An id, a name, or the beginning of an id.",
        "run_id": "A run's id, or the beginning of it.",
    },
    is_home=False,
)


def overview_document() -> Document:
    """Return the document of what ``borough up`` serves over all contexts."""
    return describe(OPERATIONS, ABOUT)
