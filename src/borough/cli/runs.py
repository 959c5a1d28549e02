"""``borough runs|show|logs|patch|retry|cancel|kill``: what becomes of runs."""

import sys
from typing import Any

import click

from borough.cli.commands import command, invocation
from borough.cli.errors import FAILED, OK
from borough.cli.output import output
from borough.cli.run_session import follow_log, runs_server, show_result, show_run
from borough.cli.session import pages
from borough.client.urls import segment

_STATES = (
    "admitted", "preparing", "working", "waiting", "collecting", "succeeded", "failed", "refused", "cancelled", "killed"
)  # fmt: skip


@command("runs", example="borough runs\nborough runs --state working --json")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--label", metavar="KEY=VALUE", help="Only those marked so.")
@click.option("-n", "--limit", type=click.IntRange(1), default=30, show_default=True, help="The newest so many.")
def runs(*, state: str | None, label: str | None, limit: int) -> None:
    """List runs, newest first."""
    with runs_server() as server:
        found = list(pages(server, "/v1/runs", "runs", {"state": state, "label": label}, limit=limit))
    out = output()
    rows = [
        (each["name"], each["state"], each["attempt"], _host(each), out.when(each["since"]), each["task"])
        for each in found
    ]
    out.show(
        {"runs": found},
        lambda: out.table(("run", "state", "attempt", "host", "since", "task"), rows, empty="there are no runs yet"),
    )


@command("show", example="borough show run-6f1d7a2e")
@click.argument("run")
def show(*, run: str) -> None:
    """Show all that is known of a run."""
    with runs_server() as server:
        found = server.get(f"/v1/runs/{segment(run)}")
    output().show(found, lambda: show_run(found))


@command("logs", example="borough logs run-6f1d7a2e -f")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt.  [default: the last]")
def logs(*, run: str, follow: bool, attempt: int | None) -> int:
    """Print what a run's command has printed."""
    with runs_server() as server:
        if follow:
            ended = follow_log(server, segment(run), quiet=invocation().json)
            output().show(ended, lambda: show_result(ended))
            return OK if ended["state"] == "succeeded" else FAILED
        offset = 0
        while True:
            query = {"offset": offset, "attempt": attempt}
            part = server.request("GET", f"/v1/runs/{segment(run)}/log", query=query).body
            if not part:
                return OK
            _out(part)
            offset += len(part)


@command("patch", example="borough patch run-6f1d7a2e | git apply")
@click.argument("run")
def patch(*, run: str) -> None:
    """Print the files that a run changed, as a patch."""
    with runs_server() as server:
        for part in server.parts("GET", f"/v1/runs/{segment(run)}/patch"):
            _out(part)


@command("retry", example="borough retry run-6f1d7a2e --follow")
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Show what it prints until it has ended.")
def retry(*, run: str, follow: bool) -> int:
    """Begin a run that is over once more, in a fresh machine."""
    with runs_server() as server:
        again = server.post(f"/v1/runs/{segment(run)}/retry")
        if not follow:
            output().show(again, lambda: output().line(f"{again['name']} begins again"))
            return OK
        ended = follow_log(server, again["id"], quiet=invocation().json)
    output().show(ended, lambda: show_result(ended))
    return OK if ended["state"] == "succeeded" else FAILED


@command("cancel", example="borough cancel run-6f1d7a2e -m 'not needed any more'")
@click.argument("run")
@click.option("-m", "--reason", default="", help="Why; it is kept.")
def cancel(*, run: str, reason: str) -> None:
    """End a run that is no longer wanted."""
    with runs_server() as server:
        ended = server.post(f"/v1/runs/{segment(run)}/cancel", {"reason": reason})
    output().show(ended, lambda: output().line(f"{ended['name']} is being cancelled"))


@command("kill", example="borough kill run-6f1d7a2e --quarantine -m 'it misbehaves'")
@click.argument("target")
@click.option("--quarantine", is_flag=True, help="Freeze its machine and keep it, instead of destroying it.")
@click.option("-m", "--reason", default="", help="Why; it is in the ledger.")
def kill(*, target: str, quarantine: bool, reason: str) -> None:
    """Take all power from a run or an agent: its key, its machine, its lease."""
    with runs_server() as server:
        done: dict[str, Any] = server.post("/v1/kill", {"target": target, "quarantine": quarantine, "reason": reason})
    told = ", ".join(word.replace("_", " ") for word in done["done"])
    output().show(done, lambda: output().line(f"powerless after {done['took_ms']:g} ms: {told}"))


def _host(run: dict[str, Any]) -> str:
    return "" if run["machine"] is None else run["machine"]["host_id"]


def _out(part: bytes) -> None:
    sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
