"""What an agent CLI is told: the task whole, who sent it, the mail, and how to finish. A pure function of the lease.

Nothing that somebody wrote is cut or changed: the task stands byte for byte between two lines that hold its id.
"""

from borough.http.town.views import MessageView
from borough.http.town.worker_wire import LeaseView, WorkerSettings
from borough.town.names import SUPERVISOR_ID

MAX_REPROMPTS = 2
"""How often a CLI that ended well without reporting is asked again."""


def task_opening(task_id: str) -> str:
    """Return the line before the task's text."""
    return f"<<<<<<<< task {task_id}"


def task_closing(task_id: str) -> str:
    """Return the line after the task's text."""
    return f">>>>>>>> end of task {task_id}"


def prompt(lease: LeaseView, settings: WorkerSettings) -> str:
    """Return the prompt for an attempt."""
    task = lease.task
    parts = [
        f"You are the agent {settings.name} (role {settings.role}) in the town {settings.town}.",
        _about(lease),
        f"{task_opening(task.task_id)}\n{task.description}\n{task_closing(task.task_id)}",
        *_mail(lease.mail),
        _how_to_finish(lease, settings),
    ]
    return "\n\n".join(parts) + "\n"


def reminder(lease: LeaseView, settings: WorkerSettings, *, number: int) -> str:
    """Return the prompt for a CLI that ended well but did not say whether the task is done."""
    return (
        f"You ended without reporting how task {lease.task.task_id} went. This is reminder {number} of"
        f" {MAX_REPROMPTS}. If the work is done, report it now; if not, finish it and report it.\n\n"
        + prompt(lease, settings)
    )


def pointer(path: str) -> str:
    """Return what stands in place of a prompt that is too long for an argument."""
    return f"Read the whole file {path} first: it holds your task and how to finish it. Then do what it says."


def _about(lease: LeaseView) -> str:
    task = lease.task
    facts = [f"Task {task.task_id}", f"from {_who(task.sender)}", f"attempt {task.attempts} of {task.max_attempts}"]
    if task.urgent:
        facts.append("urgent")
    if task.tags:
        facts.append("tags: " + ", ".join(task.tags))
    lines = [", ".join(facts) + "."]
    if task.kind == "query":
        lines.append("It is a question: your result is the answer that the sender gets.")
    if task.last_error:
        lines.append(f"The attempt before this one failed: {task.last_error}")
    lines.append("Its text, whole and unchanged, stands between the next two marked lines.")
    return "\n".join(lines)


def _mail(mail: list[MessageView]) -> list[str]:
    if not mail:
        return []
    shown = [
        f"<<<<<<<< message {message.id} ({message.type}{', urgent' if message.urgent else ''}) from"
        f" {_who(message.from_)}\n{message.text}\n>>>>>>>> end of message {message.id}"
        for message in mail
    ]
    return ["Mail that arrived for you; take it into account.", *shown]


def _how_to_finish(lease: LeaseView, settings: WorkerSettings) -> str:
    task_id = lease.task.task_id
    ending = (
        "If you end with exit code 0 without reporting, what you printed becomes the result."
        if settings.cli.on_exit_zero != "reprompt"
        else "Report before you end: ending without a report counts as not finished."
    )
    return f"""How to finish (the command 'tt' knows the server and who you are):
- done:            tt task complete {task_id} --result "WHAT CAME OF IT"
- cannot be done:  tt task fail {task_id} "WHY"
- ask or tell:     tt send supervisor "TEXT", or tt send AGENT "TEXT" (add --query for a question)
- new work:        tt backlog add "DESCRIPTION"
- look around:     tt status, tt task show {task_id}
{ending} A non-zero exit code counts as a failed attempt."""


def _who(agent_id: str) -> str:
    return "the supervisor" if agent_id == SUPERVISOR_ID else f"agent {agent_id}"
