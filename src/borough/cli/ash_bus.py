"""``ash bb`` and ``ash bus``: the shared blackboard, and messages between agents."""

from typing import Final

import click

from borough.cli.ash_memory import show_keys
from borough.cli.ash_session import (
    AshGroup,
    as_json,
    ash_command,
    ask,
    daemon,
    every,
    json_argument,
    member,
    show_done,
    show_table,
    show_value,
)
from borough.cli.output import output

_HERE: Final = "borough.cli.ash_bus"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

bb = AshGroup(
    "bb",
    help="The blackboard that all agents share; it is gone when the daemon ends.",
    example=f"ash bb write {_ID} status/build '\"green\"'",
    table={
        "read": (f"{_HERE}:read", "Print what is written under a key."),
        "write": (f"{_HERE}:write", "Write a value under a key."),
        "cas": (f"{_HERE}:cas", "Write a value if the present one is the one that you know."),
        "delete": (f"{_HERE}:delete", "Wipe a key out."),
        "list": (f"{_HERE}:list_keys", "List keys."),
    },
)
bus = AshGroup(
    "bus",
    help="Messages between agents, by topic.",
    example=f"ash bus subscribe {_ID} 'builds/*'\nash bus poll {_ID}",
    table={
        "publish": (f"{_HERE}:publish", "Send a message to a topic."),
        "subscribe": (f"{_HERE}:subscribe", "Let an agent listen to topics."),
        "unsubscribe": (f"{_HERE}:unsubscribe", "Let it listen no more."),
        "poll": (f"{_HERE}:poll", "Take the messages that have come for an agent."),
    },
)


@ash_command("read", example=f"ash bb read {_ID} status/build")
@click.argument("agent_id")
@click.argument("key")
def read(*, agent_id: str, key: str) -> None:
    """Print what is written under a key, as JSON."""
    found = ask("BlackboardRead", agent_id=agent_id, key=key)
    output().show(found, lambda: show_value(found["value"]))


@ash_command("write", example=f"ash bb write {_ID} status/build '\"green\"' --ttl 60")
@click.argument("agent_id")
@click.argument("key")
@click.argument("value", metavar="JSON")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Wipe it out after so long.")
def write(*, agent_id: str, key: str, value: str, ttl: int | None) -> None:
    """Write a value under a key."""
    fields = {"agent_id": agent_id, "key": key, "value": json_argument(value, "the value")}
    with daemon() as asked:
        made = asked.send("BlackboardWrite", fields | ({"ttl_secs": ttl} if ttl else {}))
    output().show(made, lambda: output().line(f"version {made['version']}"))


@ash_command("cas", example=f"ash bb cas {_ID} lock/build null '\"mine\"'")
@click.argument("agent_id")
@click.argument("key")
@click.argument("expected", metavar="EXPECTED")
@click.argument("new", metavar="NEW")
@click.option("--ttl", type=click.IntRange(min=1), metavar="SECONDS", help="Wipe it out after so long.")
def cas(*, agent_id: str, key: str, expected: str, new: str, ttl: int | None) -> None:
    """Write a value if the present one is the one that you know; null: there is none, and to have none."""
    fields = {
        "agent_id": agent_id,
        "key": key,
        "expected": json_argument(expected, "what is expected"),
        "new_value": json_argument(new, "the new value"),
    }
    with daemon() as asked:
        made = asked.send("BlackboardCas", fields | ({"ttl_secs": ttl} if ttl else {}))
    output().show(made if made is not None else {"ok": True}, lambda: output().line("swapped"))


@ash_command("delete", example=f"ash bb delete {_ID} status/build")
@click.argument("agent_id")
@click.argument("key")
def delete(*, agent_id: str, key: str) -> None:
    """Wipe a key out."""
    show_done("BlackboardDelete", f"Deleted {key}", agent_id=agent_id, key=key)


@ash_command("list", example=f"ash bb list {_ID} --pattern 'status/*'")
@click.argument("agent_id")
@click.option("--pattern", metavar="GLOB", help="Only keys like this.")
def list_keys(*, agent_id: str, pattern: str | None) -> None:
    """List keys."""
    show_keys(every("BlackboardList", "keys", agent_id=agent_id, pattern=pattern))


@ash_command("publish", example=f'ash bus publish {_ID} builds/done \'{{"commit": "5eafa96"}}\'')
@click.argument("agent_id")
@click.argument("topic")
@click.argument("payload", metavar="JSON")
def publish(*, agent_id: str, topic: str, payload: str) -> None:
    """Send a message to a topic."""
    with daemon() as asked:
        asked.send(
            "BusPublish", {"agent_id": agent_id, "topic": topic, "payload": json_argument(payload, "the payload")}
        )
    output().show({"ok": True}, lambda: output().line(f"Published to {topic}"))


@ash_command("subscribe", example=f"ash bus subscribe {_ID} 'builds/*'")
@click.argument("agent_id")
@click.argument("pattern")
def subscribe(*, agent_id: str, pattern: str) -> None:
    """Let an agent listen to topics."""
    show_done("BusSubscribe", f"Subscribed to {pattern}", agent_id=agent_id, pattern=pattern)


@ash_command("unsubscribe", example=f"ash bus unsubscribe {_ID} 'builds/*'")
@click.argument("agent_id")
@click.argument("pattern")
def unsubscribe(*, agent_id: str, pattern: str) -> None:
    """Let it listen no more."""
    show_done("BusUnsubscribe", f"Unsubscribed from {pattern}", agent_id=agent_id, pattern=pattern)


@ash_command("poll", example=f"ash bus poll {_ID}")
@click.argument("agent_id")
def poll(*, agent_id: str) -> None:
    """Take the messages that have come for an agent; they are gone then."""
    show_table(
        ask("BusPoll", agent_id=agent_id)["messages"],
        [
            ("published", member("published_at")),
            ("from", member("from_agent_id")),
            ("topic", member("topic")),
            ("payload", as_json("payload")),
        ],
        empty="no messages",
    )
