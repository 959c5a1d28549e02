"""From a command line to a server: which town, which server, and starting one where none runs (once, in one line)."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from borough.cli.commands import Invocation, invocation
from borough.cli.errors import Usage
from borough.cli.output import say
from borough.client.autostart import ensure_server
from borough.client.discovery import NoServer, address_of, find_server, find_town, named_address
from borough.client.http import Client
from borough.core.errors import NotFound
from borough.core.ids import is_id

PAGE: Final = 200


def connect(*, start: bool = True) -> Client:
    """Return a client for the server that the command line means.

    Raises:
        NoServer: none is named, none runs, and none may be started.
    """
    told = invocation()
    named = named_address(told.server, os.environ)
    town = find_town(Path(told.town))
    address = find_server(town, named, os.environ)
    if address is None:
        if town is None:
            raise _no_town(told)
        if not start or told.no_start or os.environ.get("TT_NO_START") == "1":
            raise NoServer(
                f"no server runs for the town in {town}",
                reason="its .tt/server.json is not there, or the process that wrote it is gone",
                resolution="start one with 'tt start' or 'townhall', or leave out --no-start",
            )
        address = address_of(start_server(town), town, os.environ)
    if told.api_key:
        address = replace(address, token=told.api_key)
    return Client(address, trace=say if told.verbose else None)


def start_server(town: Path) -> str:
    """Start the server of ``town`` in the background, if none runs, and return its address."""
    from borough.cli.launch import start_detached

    argv = [sys.executable, "-m", "borough.cli.townhall", "--town", str(town), "rest"]
    return ensure_server(town, argv=argv, env=os.environ, start=start_detached, say=say).address


def town_folder() -> Path:
    """Return the town's folder.

    Raises:
        NotFound: there is none at or above the place that ``--town`` names.
    """
    told = invocation()
    town = find_town(Path(told.town))
    if town is None:
        raise NotFound(
            f"there is no town at {Path(told.town).absolute()} or above it",
            code="no_town",
            reason="no tinytown.toml was found",
            resolution="make one with 'tt init', or name its folder with --town",
        )
    return town


def pages(client: Client, path: str, member: str, query: dict[str, Any], *, limit: int | None) -> Iterator[Any]:
    """Yield the items of a list that comes in pages, at most ``limit``."""
    left, cursor = limit, None
    while left is None or left > 0:
        wanted = PAGE if left is None else min(left, PAGE)
        page = client.get(path, {**query, "limit": wanted, "cursor": cursor})
        items = page[member]
        yield from items
        cursor = page.get("next_cursor")
        if left is not None:
            left -= len(items)
        if not cursor:
            return


def agent_id(client: Client, reference: str) -> str:
    """Return the id of the agent that ``reference`` names."""
    from borough.client.urls import segment

    return reference if is_id(reference) else str(client.get(f"/v1/agents/{segment(reference)}")["id"])


def text_of(argument: str) -> str:
    """Return ``argument``, or what stands on standard input where it is ``-``.

    Raises:
        Usage: there is nothing in it.
    """
    text = sys.stdin.read() if argument == "-" else argument
    if not text.strip():
        raise Usage(
            "the text is empty",
            reason="a task or message needs words",
            resolution="give it as one quoted argument, or '-' and write it to standard input",
        )
    return text


def _no_town(told: Invocation) -> NoServer:
    return NoServer(
        "there is no server to speak to",
        reason=f"none is named, and there is no town at {Path(told.town).absolute()} or above it",
        resolution="make a town with 'tt init', go into one, or name a server with --server URL",
    )
