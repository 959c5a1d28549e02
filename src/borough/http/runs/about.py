"""What the runs' document says of itself."""

from borough.http.openapi.documents import Document
from borough.http.pages import About, describe
from borough.http.runs.runs import OPERATIONS

ABOUT = About(
    title="Borough: runs",
    description="A task, a manifest, a machine and a budget, admitted as one; served by `borough up`.",
    tags={"public": "The pages.", "runs": "Tasks in machines of their own: admitted, followed, collected, ended."},
    path_parameters={"run_id": "A run's id, or the beginning of it that no other run has."},
    is_home=False,
)


def runs_document() -> Document:
    """Return the document of what `borough up` serves of runs."""
    return describe(OPERATIONS, ABOUT)
