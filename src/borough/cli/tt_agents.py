"""``tt spawn``, ``list``, ``kill`` and what else is done to one agent."""

import os
import sys
import time
from typing import Any, Final

import click

from borough.cli.commands import command, invocation
from borough.cli.errors import Failed
from borough.cli.output import output, say, warn
from borough.cli.session import agent_id, connect
from borough.cli.tt_server import ENDED, print_agents
from borough.client.urls import segment

_POLL_S: Final = 0.25


@command("spawn", example="tt spawn ada --cli claude --role backend\ntt spawn bob --foreground")
@click.argument("name")
@click.option("-c", "--cli", metavar="CLI", help="The agent CLI: a name from [agent_clis] or a command.")
@click.option("--role", metavar="ROLE", help="Which backlog work it takes.  [default: every role]")
@click.option("--nickname", metavar="NAME", help="How people see it.")
@click.option("--parent", metavar="AGENT", help="The agent that it works for.")
@click.option("--foreground", is_flag=True, help="Serve the agent in this process instead of the background.")
@click.option("--max-rounds", type=click.IntRange(min=1), help="Accepted for old scripts; has no meaning here.")
def spawn(
    *,
    name: str,
    cli: str | None,
    role: str | None,
    nickname: str | None,
    parent: str | None,
    foreground: bool,
    max_rounds: int | None,
) -> None:
    """Start an agent.

    The server registers NAME and starts a worker for it on the server's machine.
    """
    if max_rounds is not None:
        warn("--max-rounds has no meaning here: a worker stays until it is idle for [agent] idle_timeout_secs")
    if foreground:
        if nickname or parent:
            warn("--nickname and --parent are not told by a worker in the foreground")
        serve_here(name=name, cli=cli, role=role)
    with connect() as server:
        body = {
            "name": name,
            "cli": cli,
            "role_id": role,
            "nickname": nickname,
            "parent_agent_id": agent_id(server, parent) if parent else None,
        }
        spawned = server.post("/v1/agents", body)
    output().show(spawned, lambda: output().line(f"spawned {spawned['name']} ({spawned['agent_id']})"))


def serve_here(*, name: str, cli: str | None, role: str | None) -> None:
    """Replace this process by a worker that serves the agent ``name``."""
    with connect() as server:
        url, token = server.url, server.token
    argv = [sys.executable, "-m", "borough.cli.borough", "worker", "--server", url, "--name", name]
    for option, value in (("--cli", cli), ("--role", role), ("--token-file", _in_memory(token))):
        if value is not None:
            argv += [option, value]
    os.execv(argv[0], argv)  # noqa: S606 - an argument list of our own, no shell


def _in_memory(token: str | None) -> str | None:
    """Return the path of a file that only this process and its successor can open: nothing is left on a disk."""
    if token is None:
        return None
    descriptor = os.memfd_create("token", 0)
    os.write(descriptor, token.encode())
    return f"/proc/self/fd/{descriptor}"


@command("list", example="tt list\ntt list --json | jq -r '.agents[].name'")
def list_agents() -> None:
    """List the agents."""
    with connect() as server:
        agents = server.get("/v1/status")["agents"]
    output().show({"agents": agents, "count": len(agents)}, lambda: print_agents(output(), agents))


@command("kill", example="tt kill ada")
@click.argument("agent")
def kill(*, agent: str) -> None:
    """Stop an agent at once.

    Its running CLI is ended; the task it had is tried again by another attempt.
    """
    _act(agent, "kill")


@command("interrupt", example="tt interrupt ada")
@click.argument("agent")
def interrupt(*, agent: str) -> None:
    """Pause an agent, its running work too."""
    _act(agent, "interrupt")


@command("resume", example="tt resume ada")
@click.argument("agent")
def resume(*, agent: str) -> None:
    """Let a paused agent go on."""
    _act(agent, "resume")


@command("close", example="tt close ada && tt wait ada")
@click.argument("agent")
def close(*, agent: str) -> None:
    """Let an agent finish what it has, then stop."""
    _act(agent, "close")


@command("restart", example="tt restart ada")
@click.argument("agent")
@click.option("--rounds", type=click.IntRange(min=1), help="Accepted for old scripts; has no meaning here.")
@click.option("--foreground", is_flag=True, help="Serve the agent in this process instead of the background.")
def restart(*, agent: str, rounds: int | None, foreground: bool) -> None:
    """Start an agent that has ended again.

    It keeps its id, its inbox and its name; what an earlier life of it still tries to write is refused.
    """
    if rounds is not None:
        warn("--rounds has no meaning here: a worker stays until it is idle for [agent] idle_timeout_secs")
    if foreground:
        with connect() as server:
            found = server.get(f"/v1/agents/{segment(agent)}")
        serve_here(name=found["name"], cli=found["cli"], role=found["role_id"])
    _act(agent, "restart")


@command("wait", example="tt wait ada --timeout 600")
@click.argument("agent")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECS", help="Fail after this long.")
def wait(*, agent: str, timeout: float | None) -> None:
    """Wait until an agent has stopped.

    Exit code 0 once it has, 1 when it still runs after --timeout.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with connect() as server:
        while True:
            detail = server.get(f"/v1/agents/{segment(agent)}")
            state = detail["state"].lower()
            if state in ENDED:
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise Failed(
                    f"{detail['name']} still runs: it is {state}",
                    code="wait_timeout",
                    reason=f"it did not stop within {timeout:g} s",
                    resolution=f"see 'tt explain {detail['name']}', wait longer, or end it with 'tt kill'",
                )
            time.sleep(_POLL_S)
    output().show(detail, lambda: output().line(f"{detail['name']} is {state}"))


@command("explain", example="tt explain ada")
@click.argument("agent")
def explain(*, agent: str) -> None:
    """Say why an agent is as it is, and what comes next."""
    with connect() as server:
        told = server.get(f"/v1/agents/{segment(agent)}/explain")
    show_explanation(told)


def show_explanation(told: dict[str, Any]) -> None:
    """Print why something stands where it stands."""
    out = output()
    out.show(
        told,
        lambda: out.fields(
            [
                ("subject", told["subject"]),
                ("state", told["state"]),
                ("why", told["why"]),
                ("since", out.when(told["since"])),
                ("until", out.when(told["deadline"]) if told["deadline"] else None),
                *(("next", step) for step in told["next"]),
            ]
        ),
    )


def _act(agent: str, verb: str) -> None:
    with connect() as server:
        done = server.post(f"/v1/agents/{segment(agent)}/{verb}")
    output().show(done, lambda: output().line(f"{done['agent']} {done['status']}"))
    if verb == "interrupt" and not invocation().json:
        say(f"let it go on with 'tt resume {done['agent']}'")
