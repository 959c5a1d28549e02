"""What the town's document says of itself."""

from borough.http.openapi.documents import Document
from borough.http.pages import About, describe
from borough.http.town.routes import OPERATIONS

ABOUT = About(
    title="Borough: the town",
    description="Work for agents: tasks, backlog, inboxes, leases, the autoscaling signal.",
    tags={
        "public": "What anybody may ask: is it alive, is it ready, how busy is it.",
        "town": "The town as a whole.",
        "tasks": "What is to be done, where it stands, how it ended.",
        "backlog": "Work that waits for whoever is free and fits.",
        "messages": "What is said to agents and to the supervisor.",
        "agents": "Who does the work: started, steered, ended.",
        "workers": "The routes of the programs that serve agents.",
        "recovery": "What was left behind, found and moved on.",
        "events": "What happened, and what happens.",
    },
    path_parameters={
        "agent": "An agent: id, name, nickname, label, short id, or 'supervisor'.",
        "task_id": "A task's id, a UUID.",
        "message_id": "A message's id, a UUID.",
    },
)


def town_document() -> Document:
    """Return the document of everything that ``townhall`` serves."""
    return describe(OPERATIONS, ABOUT)
