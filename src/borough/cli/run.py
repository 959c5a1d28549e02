"""``borough run``: one run from its admission to its end, live."""

from pathlib import Path
from typing import Any

import click

from borough.cli.commands import command, invocation
from borough.cli.errors import FAILED, OK
from borough.cli.output import output, say
from borough.cli.run_session import follow_log, runs_server, show_admission, show_result
from borough.cli.session import text_of
from borough.client.http import Client
from borough.client.runs import begin, source_of

_INTERRUPTED = 130


@command(
    "run",
    example=(
        "borough run 'say hello' -- echo hello\n"
        "borough run 'mend the tests' --agent coder --source . --dry-run\n"
        "borough run 'count lines' --source . --image local-root -- sh -c 'find . -type f | xargs wc -l'"
    ),
)
@click.argument("task")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option("--manifest", type=click.Path(dir_okay=False, path_type=Path), help="The manifest that holds for it.")
@click.option("--agent", metavar="NAME", help="An installed manifest, instead.")
@click.option("--image", metavar="IMAGE", help="What the machine is made from.  [default: host]")
@click.option("--engine", metavar="ENGINE", help="Only this engine.  [default: the lightest that may be used]")
@click.option("--isolation", type=click.Choice(["process", "container", "vm"]), help="The weakest wall that will do.")
@click.option("--source", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder to work on.")
@click.option("--git", metavar="URL", help="A git remote to work on, cloned inside.")
@click.option("--ref", metavar="REF", help="Of the remote: a branch, a tag or a commit.")
@click.option("--cpu", type=click.IntRange(1, 4096), help="Processors.  [default: 1]")
@click.option("--memory", type=click.IntRange(1), metavar="MIB", help="Memory.  [default: 512]")
@click.option("--disk", type=click.IntRange(1), metavar="MIB", help="Disk.  [default: 2048]")
@click.option("--timeout", type=click.IntRange(1), metavar="SECONDS", help="For the command.  [default: 3600]")
@click.option("--attempts", type=click.IntRange(1, 20), help="At most so many.  [default: 3]")
@click.option("--budget-tokens", type=click.IntRange(0), help="At most so many tokens of models.")
@click.option("--budget-cost", type=click.IntRange(0), metavar="MICROS", help="At most so many millionths.")
@click.option("--budget-calls", type=click.IntRange(0), help="At most so many calls of tools.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Mark it, to be found by that.")
@click.option("--dry-run", is_flag=True, help="Only say whether, where and under what.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it.")
def run(**asked: Any) -> int:
    """Run a task in a machine of its own, and show what it prints.

    What comes after -- is run inside; without it, what the manifest says. Exit code 0: the run succeeded.
    """
    with runs_server() as server:
        body = order(server, asked)
        if asked["dry_run"]:
            admission = server.request("POST", "/v1/runs", query={"dry_run": 1}, body=body).json()
            output().show(admission, lambda: show_admission(admission))
            return OK if admission["ok"] else FAILED
        made = begin(server, body, asked["source"])
        if asked["detach"]:
            output().show(made, lambda: output().line(made["name"]))
            return OK
        return _attached(server, made)


def _attached(server: Client, run_: dict[str, Any]) -> int:
    quiet = invocation().json
    if not quiet:
        where = run_["admission"]
        say(f"{run_['name']}: {where['engine']} on {where['host_id']}, {where['image']}, {where['trust_level']}")
    try:
        ended = follow_log(server, run_["id"], quiet=quiet)
    except KeyboardInterrupt:
        say(f"{run_['name']} goes on; see it: borough logs -f {run_['name']}; end it: borough cancel {run_['name']}")
        return _INTERRUPTED
    output().show(ended, lambda: show_result(ended))
    return OK if ended["state"] == "succeeded" else FAILED


def order(server: Client, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the body of the request that a command line means."""
    manifest: Path | None = asked["manifest"]
    if asked["git"] is not None and asked["source"] is not None:
        raise click.UsageError("a run has one source: --source or --git")
    budget = {
        "tokens": asked["budget_tokens"], "cost_micros": asked["budget_cost"], "tool_calls": asked["budget_calls"]
    }  # fmt: skip
    body = {
        "task": text_of(asked["task"]),
        "manifest": None if manifest is None else manifest.read_text(encoding="utf-8"),
        "agent": asked["agent"],
        "command": list(asked["argv"]) or None,
        "image": asked["image"],
        "engine": asked["engine"],
        "isolation": asked["isolation"],
        "source": source_of(server, asked["source"], asked["git"], asked["ref"]),
        "cpu": asked["cpu"],
        "memory_mib": asked["memory"],
        "disk_mib": asked["disk"],
        "timeout_s": asked["timeout"],
        "max_attempts": asked["attempts"],
        "budget": budget if any(value is not None for value in budget.values()) else None,
        "labels": dict(label.partition("=")[::2] for label in asked["labels"]) or None,
    }
    return {name: value for name, value in body.items() if value is not None}
