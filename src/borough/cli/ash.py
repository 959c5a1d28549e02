"""``ash``: the shell of ``agentd``. Only the table of commands is here; each is imported when it is called."""

import sys
from importlib.metadata import version
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup
from borough.cli.errors import run

_AGENTS: Final = "borough.cli.ash_agents"
_TOOLS: Final = "borough.cli.ash_tools"
_AUDIT: Final = "borough.cli.ash_audit"
_MEMORY: Final = "borough.cli.ash_memory"
_BUS: Final = "borough.cli.ash_bus"
_WORKSPACE: Final = "borough.cli.ash_workspace"
_SECRETS: Final = "borough.cli.ash_secrets"
_PEOPLE: Final = "borough.cli.ash_people"
_SCHEDULE: Final = "borough.cli.ash_schedule"
_MCP: Final = "borough.cli.ash_mcp"
_STORE: Final = "borough.cli.ash_store"
_KEYS: Final = "borough.cli.ash_keys"
_POLICY: Final = "borough.cli.ash_policy"

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "ping": (f"{_AGENTS}:ping", "Ask whether the daemon is there."),
    "status": (f"{_AGENTS}:status", "Show the daemon: version, uptime, agents."),
    "spawn": (f"{_AGENTS}:spawn", "Start an agent from a manifest."),
    "validate": (f"{_AGENTS}:validate", "Check a manifest, without any daemon."),
    "list": (f"{_AGENTS}:list_agents", "List the agents that run."),
    "ls": (f"{_AGENTS}:list_agents", "The same as list."),
    "info": (f"{_AGENTS}:info", "Show everything about an agent."),
    "kill": (f"{_AGENTS}:kill", "End an agent with everything that it started."),
    "transition": (f"{_AGENTS}:transition", "Move an agent to another state."),
    "pause": (f"{_AGENTS}:pause", "Stop an agent where it is."),
    "resume": (f"{_AGENTS}:resume", "Let a paused agent go on."),
    "logs": (f"{_AGENTS}:logs", "Print what an agent printed."),
    "result": (f"{_AGENTS}:result", "Print what an agent handed back."),
    "discover": (f"{_AGENTS}:discover", "Find agents by their capabilities."),
    "tools": (f"{_TOOLS}:tools", "Tools: list, schema, invoke, proposed, approve, deny."),
    "policy": (f"{_POLICY}:policy", "What would be decided: test, simulate, shadow."),
    "audit": (f"{_AUDIT}:audit", "Show the ledger; verify it."),
    "obs": (f"{_MEMORY}:obs", "What agents say of themselves: query."),
    "memory": (f"{_MEMORY}:memory", "What agents keep: read, write, cas, delete, list."),
    "bb": (f"{_BUS}:bb", "The shared blackboard: read, write, cas, delete, list."),
    "bus": (f"{_BUS}:bus", "Messages: publish, subscribe, unsubscribe, poll."),
    "workspace": (f"{_WORKSPACE}:workspace", "Agents' files: snapshot, history, diff, rollback, commit."),
    "secrets": (f"{_SECRETS}:secrets", "Secrets and when they may be used: unlock, lock, add, policy …"),
    "grants": (f"{_PEOPLE}:grants", "Capabilities given for a time: list, issue, revoke."),
    "hierarchy": (f"{_PEOPLE}:hierarchy", "Who started whom: show, escalations."),
    "pending": (f"{_PEOPLE}:pending", "List the calls that wait for somebody's agreement."),
    "approve": (f"{_PEOPLE}:approve", "Agree to a call."),
    "deny": (f"{_PEOPLE}:deny", "Refuse a call."),
    "endorse": (f"{_PEOPLE}:endorse", "Say that an agent may send data out again."),
    "scheduler": (f"{_SCHEDULE}:scheduler", "Priorities, deadlines, budgets: stats, info, set-…"),
    "anomaly": (f"{_SCHEDULE}:anomaly", "What was out of the ordinary: list."),
    "replay": (f"{_SCHEDULE}:replay", "What an agent did, in order: timeline, rollback."),
    "mcp": (f"{_MCP}:mcp", "MCP servers: add, list, remove, attach, detach."),
    "agent": (f"{_STORE}:agent", "Installed agents: install, list, remove, run, capability-sheet."),
    "api-key": (f"{_KEYS}:api_key", "Keys for the gateway: create, list, rotate, revoke."),
    "completion": ("borough.cli.ash:completion", "Print the completion script for a shell."),
}
SECTIONS: Final = {
    "The daemon": ("ping", "status"),
    "Agents": (
        *("spawn", "validate", "list", "ls", "info", "kill", "transition", "pause", "resume", "logs", "result"),
        *("discover", "agent", "workspace"),
    ),
    "Law": ("tools", "policy", "grants", "secrets", "mcp", "api-key"),
    "People": ("pending", "approve", "deny", "endorse", "hierarchy"),
    "Records": ("audit", "obs", "memory", "bb", "bus", "scheduler", "anomaly", "replay"),
    "Upkeep": ("completion",),
}


def _version(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"ash {version('borough')}")
        context.exit()


program = AshGroup(
    "ash",
    help="Look at governed agents and steer them, over the daemon's socket.",
    example='ash spawn manifest.yaml\nash list\nash tools invoke 550e8400-… echo \'{"message": "hello"}\'',
    table=COMMANDS,
    sections=SECTIONS,
    params=[
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Say it.")
    ],
)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> None:
    """Print the completion script for a shell: eval "$(ash completion bash)"."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(made(program, {}, "ash", "_ASH_COMPLETE").source())


def main() -> None:
    """Run ``ash``."""
    sys.exit(run(program, "ash"))


if __name__ == "__main__":
    main()
