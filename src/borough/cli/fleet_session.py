"""From a command line to the fleet's controller, and waiting for what was begun there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from borough.cli.commands import invocation
from borough.cli.errors import Failed
from borough.cli.output import say
from borough.client.controller_address import find_controller
from borough.client.fleet import UNDER_WAY, FleetClient
from borough.client.http import Client

TIMEOUT_S: Final = 60.0
TELL_EVERY_S: Final = 2
LONG_TIMEOUT_S: Final = 600.0
"""For what a controller of the reference's kind does within one request."""


def controller(*, timeout_s: float = TIMEOUT_S) -> FleetClient:
    """Return a client for the controller that the command line means.

    Raises:
        NoServer: none is named, none runs in a town here, and none was saved.
    """
    told = invocation()
    address = find_controller(os.environ, named=told.server, key=told.api_key, start=Path(told.town))
    return FleetClient(Client(address, timeout_s=timeout_s, trace=say if told.verbose else None))


def wait_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--wait/--no-wait``."""
    return click.option(
        "--wait/--no-wait", default=True, show_default=True, help="Wait for the end, and say how far it is."
    )(function)


def finished(fleet: FleetClient, answer: Any, *, wait: bool) -> dict[str, Any] | None:
    """Return the operation that ``answer`` began, over if ``wait``; ``None``: it was done within the request.

    What was made only in part is made; what was stopped or deleted only in part is not.

    Raises:
        Failed: it ended, and not everything is as wanted.
    """
    if not isinstance(answer, dict) or "kind" not in answer:
        return None
    operation: dict[str, Any] = answer
    shown, told = "", ""
    while wait and operation["state"] == UNDER_WAY:
        now = "; ".join(operation.get("warnings", []))
        if now and now != told:
            told = now
            say(f"{operation['kind']} {operation['subject']} {told}")
        how_far = _how_far(operation)
        if how_far != shown and operation["total"]:
            shown = how_far
            say(how_far)
        operation = fleet.operation(operation["id"], wait_s=TELL_EVERY_S)
    errors = [why if why.startswith(what) else f"{what}: {why}" for what, why in operation["errors"].items()]
    good = {"succeeded", UNDER_WAY} if operation["kind"] != "create" else {"succeeded", "partial", UNDER_WAY}
    if operation["state"] not in good:
        raise Failed(
            f"{operation['kind']} of {operation['subject']} is not done",
            code="operation_failed",
            reason="; ".join(errors) or None,
            resolution=_next(operation),
        )
    for error in errors:
        say(f"warning: {error}")
    return operation


def _next(operation: dict[str, Any]) -> str:
    subject = operation["subject"]
    if operation["kind"] == "create":
        return "mend what it says, then create it again: what could not be made is removed by itself"
    about = "host" if operation["kind"] == "drain" else "env"
    return f"see 'tt {about} show {subject}'; what is not confirmed is tried again by itself"


def _how_far(operation: dict[str, Any]) -> str:
    doing = f" ({operation['doing']})" if operation.get("doing") else ""
    return f"{operation['kind']} {operation['subject']}: {operation['done']} of {operation['total']}{doing}"


def begun_text(operation: dict[str, Any]) -> str:
    """Return what is said of work that goes on by itself."""
    return f"{operation['kind']} of {operation['subject']} has begun (operation {operation['id']})"
