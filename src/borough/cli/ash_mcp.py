"""``ash mcp``: MCP servers, and which agents have their tools."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, member, show_done, show_table
from borough.cli.errors import Usage
from borough.cli.output import output

_HERE: Final = "borough.cli.ash_mcp"
_ID: Final = "550e8400-e29b-41d4-a716-446655440000"

mcp = AshGroup(
    "mcp",
    help="MCP servers: what is known, and which agents have their tools.",
    example=f"ash mcp add files stdio --command mcp-files --args --root,/srv\nash mcp attach {_ID} files",
    table={
        "add": (f"{_HERE}:add", "Make a server known."),
        "list": (f"{_HERE}:list_servers", "List the servers that are known."),
        "ls": (f"{_HERE}:list_servers", "The same as list."),
        "remove": (f"{_HERE}:remove", "Forget a server; what is attached stays so."),
        "attach": (f"{_HERE}:attach", "Give an agent the server's tools."),
        "detach": (f"{_HERE}:detach", "Take them away."),
    },
)


@ash_command("add", example="ash mcp add search http --url https://mcp.example.com/mcp")
@click.argument("name")
@click.argument("transport", type=click.Choice(["stdio", "http"], case_sensitive=False))
@click.option("--command", metavar="PROGRAM", help="What is started (stdio).")
@click.option("--args", metavar="A,B,…", help="Its arguments, separated by commas.")
@click.option("--url", metavar="URL", help="Where it is (http).")
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="For its environment; {{secret:name}} is kept.")
@click.option("--description", metavar="TEXT", help="What it is good for.")
def add(*, name: str, transport: str, args: str | None, env: tuple[str, ...], **wanted: Any) -> None:
    """Make a server known; nothing is started before it is attached."""
    pairs = [line.partition("=") for line in env]
    if any(not separator for _, separator, _ in pairs):
        raise Usage("--env takes NAME=VALUE", resolution="as in --env 'TOKEN={{secret:github-token}}'")
    made = ask(
        "McpAdd",
        name=name,
        transport=transport.lower(),
        args=args.split(",") if args else None,
        env_template=[[key, value] for key, _, value in pairs] or None,
        **wanted,
    )
    output().show(made, lambda: output().line(f"Added {name}"))


@ash_command("list", example="ash mcp list")
def list_servers() -> None:
    """List the servers that are known; of their environment only the names are shown."""
    show_table(
        ask("McpList")["servers"],
        [
            ("name", member("name")),
            ("transport", member("transport")),
            ("command/url", lambda one: one.get("command") or one.get("url")),
            ("env", lambda one: ", ".join(one["env"])),
            ("description", member("description")),
        ],
        empty="no servers are known",
    )


@ash_command("remove", example="ash mcp remove search")
@click.argument("name")
def remove(*, name: str) -> None:
    """Forget a server; what is attached stays so."""
    show_done("McpRemove", f"Removed {name}", name=name)


@ash_command("attach", example=f"ash mcp attach {_ID} files")
@click.argument("agent_id")
@click.argument("name")
@click.option("--accept-changes", is_flag=True, help="Agree to tools that say of themselves something else by now.")
@click.option("--operator", metavar="NAME", help="Accepted as the reference has it; the socket says who you are.")
def attach(*, agent_id: str, name: str, accept_changes: bool, operator: str | None) -> None:
    """Give an agent the server's tools, and list them; what changed since it was agreed to is withheld."""
    del operator
    made = ask("McpAttach", agent_id=agent_id, name=name, accept_changes=accept_changes or None)
    _show_tools(made, {"+": made["tools"], "?": made["withheld"]})


@ash_command("detach", example=f"ash mcp detach {_ID} files")
@click.argument("agent_id")
@click.argument("name")
def detach(*, agent_id: str, name: str) -> None:
    """Take the server's tools from an agent, and list them."""
    made = ask("McpDetach", agent_id=agent_id, name=name)
    _show_tools(made, {"-": made["removed"]})


def _show_tools(made: object, signs: Mapping[str, Sequence[str]]) -> None:
    out = output()

    def human() -> None:
        for sign, tools in signs.items():
            for tool in tools:
                out.line(f"{sign} {tool}")

    out.show(made, human)
