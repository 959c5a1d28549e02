"""What the commands of ``ash`` share: the daemon, how commands and groups are declared, arguments, and answers."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from borough.cli.commands import LazyGroup, command, invocation, shell_options
from borough.cli.errors import Usage
from borough.cli.output import output
from borough.client.daemon import Daemon
from borough.client.discovery import find_socket
from borough.config.agentd_places import SOCKET_VARIABLE, operators_socket

ash_command = partial(command, common=shell_options)
AshGroup = partial(LazyGroup, common=shell_options)

STANDARD_INPUT: Final = "-"
Column = tuple[str, Callable[[Mapping[str, Any]], object]]
"""A heading, and what stands below it for one record."""


def daemon() -> Daemon:
    """Return a connection to the daemon that is meant.

    The command line's ``--socket`` wins over ``SCARAB_SOCKET``, that over the server of the town at or above the
    present folder, and that over the user's own daemon.

    Raises:
        NoServer: none runs there.
    """
    told = invocation().socket or os.environ.get(SOCKET_VARIABLE)
    path = Path(told) if told else find_socket(Path()) or operators_socket(os.environ)
    return Daemon(path)


def ask(variant: str, **fields: Any) -> Any:
    """Ask the daemon one question and return what its answer carries."""
    with daemon() as asked:
        return asked.ask(variant, **fields)


def show_done(variant: str, told: str, **fields: Any) -> None:
    """Ask for something to be done and say that it was."""
    carried = ask(variant, **fields)
    output().show(carried if carried is not None else {"ok": True}, lambda: output().line(told))


def show_table(
    records: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, empty: str, document: object | None = None
) -> None:
    """Show records as a table, or as the JSON that they came as."""
    out = output()
    headings = [heading for heading, _ in columns]

    def human() -> None:
        out.table(headings, [[cell(record) for _, cell in columns] for record in records], empty=empty)

    out.show(records if document is None else document, human)


def show_value(value: object) -> None:
    """Show a JSON value as it is: what a program reads from a pipe is the same as with ``--json``."""
    output().document(value)


def member(name: str) -> Callable[[Mapping[str, Any]], object]:
    """Return a column that shows one member."""
    return lambda record: record.get(name)


def as_json(name: str) -> Callable[[Mapping[str, Any]], object]:
    """Return a column that shows one member as JSON."""
    return lambda record: json.dumps(record.get(name), ensure_ascii=False)


def flat(found: Mapping[str, Any], above: str = "") -> list[tuple[str, object]]:
    """Return names and values for people: what is inside is told with the names above it."""
    pairs: list[tuple[str, object]] = []
    for name, value in found.items():
        told = f"{above}{name}"
        if isinstance(value, dict):
            pairs.extend(flat(value, f"{told}."))
        elif isinstance(value, list):
            pairs.append((told, ", ".join(map(str, value)) if value else None))
        elif isinstance(value, bool):
            pairs.append((told, "yes" if value else "no"))
        else:
            pairs.append((told, value))
    return pairs


def every(variant: str, listed: str, **fields: Any) -> list[Any]:
    """Return all records of a list that the daemon hands out in pages."""
    found: list[Any] = []
    with daemon() as asked:
        page = asked.ask(variant, **fields)
        found.extend(page[listed])
        while page.get("cursor"):
            page = asked.ask(variant, **fields, cursor=page["cursor"])
            found.extend(page[listed])
    return found


def when(name: str) -> Callable[[Mapping[str, Any]], object]:
    """Return a column that shows a time."""
    return lambda record: output().when(record[name]) if record.get(name) else "never"


def json_argument(text: str, what: str) -> Any:
    """Return the JSON that an argument holds; ``-`` is standard input.

    Raises:
        Usage: it is no JSON.
    """
    raw = sys.stdin.read() if text == STANDARD_INPUT else text
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Usage(
            f"{what} is not JSON: {error}",
            reason="it is handed to the daemon as it is",
            resolution='quote it for the shell, as in \'{"message": "hello"}\', or write - to read standard input',
        ) from None


def manifest_text(path: str) -> str:
    """Return the text of a manifest; ``-`` is standard input."""
    return sys.stdin.read() if path == STANDARD_INPUT else Path(path).read_text(encoding="utf-8")


def manifest_folder(path: str) -> str | None:
    """Return the folder in which a manifest's relative paths begin."""
    return None if path == STANDARD_INPUT else str(Path(path).resolve().parent)
