"""What the commands about runs share: the server, a run's log as it grows, and how runs are shown."""

import sys
from typing import Any

from borough.cli.output import Output, output, say
from borough.cli.session import connect
from borough.cli.text import harmless_block
from borough.client.discovery import NoServer
from borough.client.http import Client
from borough.client.runs import ended, log_parts


def runs_server() -> Client:
    """Return a client for the server that has the runs; none is started, since a town alone has none.

    Raises:
        NoServer: none is named, and none runs here.
    """
    try:
        return connect(start=False)
    except NoServer as error:
        raise NoServer(error.message, reason=error.reason, resolution="start one here: borough up") from None


def follow_log(server: Client, run_id: str, *, quiet: bool = False) -> dict[str, Any]:
    """Print a run's log until it has ended, over a server's restart too; return it then."""
    attempt = 0
    for part in log_parts(server, run_id):
        if attempt and part.attempt != attempt:
            say(f"attempt {part.attempt}, in another machine")
        attempt = part.attempt
        if not quiet:
            _print(part.text)
    found: dict[str, Any] = ended(server, run_id)
    return found


def show_admission(admission: dict[str, Any]) -> None:
    """Print a decision as a table."""
    budget = {name: value for name, value in admission["budget"].items() if value is not None}
    out = output()
    out.fields(
        [
            ("admitted", "yes" if admission["ok"] else "no"),
            ("engine", admission["engine"]),
            ("host", admission["host_id"]),
            ("image", admission["image"]),
            ("digest", admission["image_digest"]),
            ("isolation", f"at least {admission['isolation']}"),
            ("trust level", admission["trust_level"]),
            ("capabilities", ", ".join(admission["capabilities"]) or "none"),
            ("domains", ", ".join(admission["domains"]) or "none"),
            ("tools", "reached from inside" if admission["tools"] else "not reached from inside"),
            ("budget", ", ".join(f"{name} {value}" for name, value in budget.items()) or "no limit"),
            ("start", f"{admission['start']}, about {admission['expected_start_ms']} ms" if admission["ok"] else None),
        ]
    )
    for each in admission["reasons"]:
        out.line(f"{each['subject']}: {each['reason']}")


def show_run(run: dict[str, Any]) -> None:
    """Print all that is known of a run."""
    out, machine = output(), run["machine"]
    where = None if machine is None else f"{machine['vm_id']} ({machine['engine']}) on {machine['host_id']}"
    out.fields(
        [
            ("run", run["name"]),
            ("id", run["id"]),
            ("task", run["task"]),
            ("state", run["state"] + (", quarantined" if run["quarantined"] else "")),
            ("why", run["reason"]),
            ("next", run["next"]),
            ("since", out.when(run["since"])),
            ("attempt", f"{run['attempt']} of {run['max_attempts']}"),
            ("agent", f"{run['agent']['name']} ({run['agent']['id']}, {run['agent']['trust_level']})"),
            ("machine", where if machine is None else f"{where}, {machine['state']}"),
            ("image", f"{run['admission']['image']} {run['admission']['image_digest'] or ''}".strip()),
            ("spent", spent_text(run["spent"])),
            ("labels", " ".join(f"{key}={value}" for key, value in run["labels"].items()) or None),
            ("answer", None if run["result"] is None else run["result"]["answer"]),
        ]
    )
    if run["result"] is not None:
        show_files(out, run)


def show_result(run: dict[str, Any]) -> None:
    """Say how a run ended."""
    out = output()
    say(f"{run['name']} {run['state']}" + (f": {run['reason']}" if run["reason"] else ""))
    if run["result"] is not None and run["result"]["files_changed"]:
        show_files(out, run)
        say(f"see the changes: borough patch {run['name']}")
    say(spent_text(run["spent"]))


def show_files(out: Output, run: dict[str, Any]) -> None:
    """Print which files a run changed."""
    rows = [(changed["kind"], changed["path"]) for changed in run["result"]["files_changed"]]
    out.table(("change", "file"), rows, empty="it changed no file")


def spent_text(spent: dict[str, Any]) -> str:
    """Return what a run used."""
    return (
        f"{spent['wall_s']} s, {spent['tool_calls']} tool calls, {spent['tokens']} tokens, "
        f"{spent['cost_micros'] / 1_000_000:g} cost units"
    )


def _print(text: str) -> None:
    sys.stdout.write(harmless_block(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
