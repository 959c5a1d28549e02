"""``tt send`` and ``tt inbox``: what agents and people say to each other."""

from typing import Any, Final

import click

from borough.cli.commands import command, invocation, self_reference
from borough.cli.errors import Usage
from borough.cli.output import Output, output, say
from borough.cli.session import connect, text_of
from borough.client.http import Client
from borough.client.urls import segment

_SUPERVISOR: Final = "supervisor"
_PREVIEWED: Final = 10


@command("send", example='tt send ada "Which branch?" --query\ntt send supervisor "Done with part one" --info')
@click.argument("to")
@click.argument("message")
@click.option("--query", is_flag=True, help="A question: it becomes a task whose result is the answer.")
@click.option("--info", is_flag=True, help="News: told with the agent's next task.")
@click.option("--ack", is_flag=True, help="A confirmation.")
@click.option("--urgent", is_flag=True, help="Before all that is not urgent.")
@click.option("--from", "sender", metavar="AGENT", help="Who says it.  [default: the present agent, else supervisor]")
def send(*, to: str, message: str, query: bool, info: bool, ack: bool, urgent: bool, sender: str | None) -> None:
    """Send a message to an agent.

    MESSAGE is the text, or - to read it from standard input. Without --query, --info or --ack it is a task.
    """
    kinds = [kind for kind, asked in (("query", query), ("info", info), ("ack", ack)) if asked]
    if len(kinds) > 1:
        raise Usage(
            "a message has one kind",
            reason=f"--{' and --'.join(kinds)} exclude each other",
            resolution="choose one of --query, --info and --ack",
        )
    body = {
        "to": to,
        "message": text_of(message),
        "kind": kinds[0] if kinds else "task",
        "urgent": urgent,
        "from": sender or self_reference(),
    }
    with connect() as server:
        done = server.post("/v1/messages/send", body)
    output().show(done, lambda: output().line(done["message_id"]))


@command("inbox", example="tt inbox ada\ntt inbox ada --read 0b0f5c1f-8a11-4f0b-9d6b-6f6d1ab07a4e\ntt inbox --all")
@click.argument("agent", required=False)
@click.option("-a", "--all", "everyone", is_flag=True, help="Every agent's, and the supervisor's.")
@click.option("--read", "message_id", metavar="MESSAGE", help="Show one message in full.")
@click.option("--ack", "ids", metavar="MESSAGE", multiple=True, help="Acknowledge this message; may be repeated.")
@click.option("--ack-all", is_flag=True, help="Acknowledge all mail.")
def inbox(*, agent: str | None, everyone: bool, message_id: str | None, ids: tuple[str, ...], ack_all: bool) -> None:
    """Look into an inbox.

    Looking changes nothing. Without AGENT it is the present agent's, else the supervisor's.
    """
    who = agent or self_reference() or _SUPERVISOR
    if everyone and (agent or message_id or ids or ack_all):
        raise Usage(
            "--all shows every inbox and takes nothing else",
            reason="a message is read and acknowledged in one inbox",
            resolution="name the agent instead of --all",
        )
    with connect() as server:
        if message_id:
            _read(server, who, message_id)
        elif ids or ack_all:
            _acknowledge(server, who, None if ack_all else list(ids))
        elif everyone:
            _show_all(server)
        else:
            found = server.get(f"/v1/agents/{segment(who)}/inbox")
            output().show(found, lambda: _print_inbox(output(), found, limit=None))


def _read(server: Client, who: str, message_id: str) -> None:
    found = server.get(f"/v1/agents/{segment(who)}/inbox/{segment(message_id)}")
    out = output()

    def human() -> None:
        out.fields(
            [
                ("message", found["id"]),
                ("from", found["from"]),
                ("to", found["to"]),
                ("type", found["type"]),
                ("urgent", "yes" if found["urgent"] else None),
                ("sent", out.when(found["created_at"])),
            ]
        )
        out.block(f"\n{found['text']}")

    out.show(found, human)


def _acknowledge(server: Client, who: str, ids: list[str] | None) -> None:
    done = server.post(f"/v1/agents/{segment(who)}/inbox/ack", {"message_ids": ids})
    output().show(done, lambda: output().line(f"{done['acknowledged']} acknowledged"))


def _show_all(server: Client) -> None:
    names = [agent["name"] for agent in server.get("/v1/agents")["agents"]]
    inboxes = [server.get(f"/v1/agents/{segment(name)}/inbox") for name in (*names, _SUPERVISOR)]

    def human() -> None:
        for found in inboxes:
            if found["total"] or found["urgent"] or found["messages"]:
                _print_inbox(output(), found, limit=_PREVIEWED)
        if not any(found["messages"] for found in inboxes):
            say("all inboxes are empty")

    output().show({"inboxes": inboxes}, human)


def _print_inbox(out: Output, found: dict[str, Any], *, limit: int | None) -> None:
    if out.terminal and not invocation().json:
        say(f"{found['agent']}: {found['total']} waiting and {found['urgent']} urgent")
    shown = found["messages"][:limit]
    out.table(
        ("message", "type", "urgent", "from", "summary"),
        [(one["id"], one["type"], "urgent" if one["urgent"] else "", one["from"], one["summary"]) for one in shown],
        empty="nothing unread",
    )
    if len(found["messages"]) > len(shown):
        say(f"and {len(found['messages']) - len(shown)} more: tt inbox {found['agent']}")
