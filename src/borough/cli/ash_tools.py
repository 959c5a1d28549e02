"""``ash tools``: what agents can call, calling it, and tools that agents propose."""

from collections.abc import Mapping
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, json_argument, member, show_table, show_value, when
from borough.cli.errors import Failed
from borough.cli.output import output
from borough.core.errors import BoroughError, Forbidden, NotFound

_HERE: Final = "borough.cli.ash_tools"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

tools = AshGroup(
    "tools",
    help="Tools: what agents can call.",
    example=f'ash tools list\nash tools invoke {_ID} echo \'{{"message": "hello"}}\'',
    table={
        "list": (f"{_HERE}:list_tools", "List tools, all or one agent's."),
        "schema": (f"{_HERE}:schema", "Show what a tool takes and gives."),
        "invoke": (f"{_HERE}:invoke", "Call a tool for an agent and print its output."),
        "proposed": (f"{_HERE}:proposed", "List tools that agents would like to have."),
        "approve": (f"{_HERE}:approve", "Let a proposed tool be used."),
        "deny": (f"{_HERE}:deny", "Refuse a proposed tool."),
    },
)


@ash_command("list", example=f"ash tools list\nash tools list --agent {_ID}")
@click.option("-a", "--agent", "agent_id", metavar="ID", help="What this agent may use.")
def list_tools(*, agent_id: str | None) -> None:
    """List tools, all or one agent's."""
    show_table(
        ask("ToolList", agent_id=agent_id)["tools"],
        [
            ("name", member("name")),
            ("category", member("category")),
            ("cost", member("estimated_cost")),
            ("approval", lambda tool: "yes" if tool.get("requires_approval") else ""),
            ("source", member("source")),
            ("description", member("description")),
        ],
        empty="no tools",
    )


@ash_command("schema", example="ash tools schema fs.read")
@click.argument("name")
@click.option("-a", "--agent", "agent_id", metavar="ID", help="A tool that only this agent has.")
def schema(*, name: str, agent_id: str | None) -> None:
    """Show what a tool takes and gives (JSON Schema)."""
    show_value(ask("ToolSchema", tool_name=name, agent_id=agent_id))


@ash_command("invoke", example=f'ash tools invoke {_ID} echo \'{{"message": "hello"}}\'')
@click.argument("agent_id")
@click.argument("name")
@click.argument("arguments", metavar="JSON", default="{}")
def invoke(*, agent_id: str, name: str, arguments: str) -> None:
    """Call a tool for an agent and print its bare output; waits while a human is asked."""
    told = ask("ToolInvoke", agent_id=agent_id, tool_name=name, input=json_argument(arguments, "the tool's input"))
    if told["status"] != "success":
        raise _failure(told, agent_id)
    show_value(told["output"])


def _failure(told: Mapping[str, Any], agent_id: str) -> BoroughError:
    kind: type[BoroughError] = {"denied": Forbidden, "not_found": NotFound}.get(told["status"], Failed)
    given = told.get("output")
    said = given if isinstance(given, dict) else {"error": given}
    return kind(
        str(said.get("error") or told["status"]),
        code=str(told.get("code") or told["status"]),
        reason=said.get("reason"),
        resolution=said.get("resolution") or f"see what was recorded: ash audit --agent {agent_id}",
        details={"request_id": told["request_id"]},
    )


@ash_command("proposed", example="ash tools proposed")
def proposed() -> None:
    """List tools that agents would like to have."""
    show_table(
        ask("ToolProposals", state="proposed")["proposals"],
        [
            ("proposal-id", member("proposal_id")),
            ("agent", member("agent_id")),
            ("tool", lambda one: one["tool"]["name"]),
            ("created", when("created_at")),
        ],
        empty="no tool is proposed",
    )


@ash_command("approve", example=f"ash tools approve {_ID}")
@click.argument("proposal_id")
@click.option("--everywhere", is_flag=True, help="For all agents, not only the one that proposed it.")
def approve(*, proposal_id: str, everywhere: bool) -> None:
    """Let a proposed tool be used."""
    done = ask("ToolApprove", proposal_id=proposal_id, everywhere=everywhere or None)
    output().show(done, lambda: output().line(f"Approved {proposal_id}"))


@ash_command("deny", example=f"ash tools deny {_ID}")
@click.argument("proposal_id")
def deny(*, proposal_id: str) -> None:
    """Refuse a proposed tool; whoever proposed it is told."""
    done = ask("ToolDeny", proposal_id=proposal_id)
    output().show(done, lambda: output().line(f"Denied {proposal_id}"))
