"""``tt init``, ``towns``, ``config``: what is local by nature and needs no server."""

import os
from pathlib import Path
from typing import Any

import click

from borough.cli.commands import command, invocation
from borough.cli.errors import Usage
from borough.cli.output import Output, output, say
from borough.core.errors import BoroughError


@command("init", example="tt init --name mytown\ntt init --cli codex --max-agents 5")
@click.option("-n", "--name", metavar="NAME", help="The town's name.  [default: repository and branch, else folder]")
@click.option("-c", "--cli", metavar="CLI", help="The agent CLI for spawn.  [default: the user's, else claude]")
@click.option("--max-agents", type=click.IntRange(min=1), default=10, show_default=True, help="Live agents at most.")
def init(*, name: str | None, cli: str | None, max_agents: int) -> None:
    """Make a town in this folder.

    Writes tinytown.toml, makes .tt and adds it to .gitignore. A town that is there already is left as it is.
    """
    from borough.config.global_file import load_global, register_town
    from borough.config.town_file import create_town

    default = cli or load_global(os.environ).file.default_cli
    town = create_town(Path(invocation().town), name=name, default_cli=default, max_agents=max_agents)
    register_town(os.environ, town.root, town.name)
    document = {"name": town.name, "root": str(town.root), "gitignore_changed": town.gitignore_changed}
    output().show(document, lambda: output().line(f"town {town.name} in {town.root}"))
    if not invocation().json:
        say("next: 'tt spawn NAME' starts an agent; 'tt status' shows the town; 'townhall' serves it in the foreground")


@command("towns", example="tt towns")
def towns() -> None:
    """List the towns of this user, and whether each is served. Starts nothing."""
    from borough.config.global_file import registered_towns

    found = [_town_row(Path(town.path), town.name) for town in registered_towns(os.environ)]
    output().show({"towns": found}, lambda: _print_towns(output(), found))


def _town_row(path: Path, name: str) -> dict[str, Any]:
    from borough.client.discovery import TOWN_FILE, address_of, read_record
    from borough.client.http import Client

    row: dict[str, Any] = {"name": name, "path": str(path), "state": "offline", "address": None, "agents": None}
    if not path.is_dir():
        return row | {"state": "gone"}
    if not (path / TOWN_FILE).is_file():
        return row | {"state": "no tinytown.toml"}
    record = read_record(path)
    if record is None:
        return row
    row["address"] = record.address
    try:
        with Client(address_of(record.address, path, os.environ), timeout_s=3.0) as server:
            agents = server.get("/v1/agents")["agents"]
    except BoroughError as problem:
        return row | {"state": f"not answering: {problem.message}"}
    working = sum(agent["state"].lower() not in {"stopped", "error", "cold"} for agent in agents)
    return row | {"state": "running", "agents": {"total": len(agents), "active": working}}


def _print_towns(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("town", "state", "agents", "server", "path"),
        [
            (
                town["name"],
                town["state"],
                f"{town['agents']['total']} ({town['agents']['active']} active)" if town["agents"] else "",
                town["address"],
                town["path"],
            )
            for town in found
        ],
        empty="there are none; make one with 'tt init'",
    )


@command(
    "config",
    example="tt config default_cli codex\ntt config agent_clis.mine 'my-agent --print'\ntt config 127.0.0.1:9200",
)
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--here", is_flag=True, help="The town's tinytown.toml instead of the user's ~/.tt/config.toml.")
def config(*, key: str | None, value: str | None, here: bool) -> None:
    """Show or change this user's settings; or save the fleet controller's address.

    Without KEY it shows all of them, with KEY its value, with VALUE it sets it. --here: those of the town.
    HOST:PORT instead of KEY is saved as the controller's address, with --api-key also the key for it.
    """
    if key is not None and value is None and (":" in key or "//" in key):
        _save_controller(key)
    elif key is None:
        _show_settings(here=here)
    elif value is None:
        found = _read_setting(key, here=here)
        output().show({"key": key, "value": _plain(found)}, lambda: output().line(str(_plain(found))))
    else:
        _change_setting(key, value, here=here)
        output().show({"key": key, "value": value}, lambda: say(f"set {key}"))


def _save_controller(address: str) -> None:
    from borough.cli.commands import invocation
    from borough.client.controller_address import save

    api_key = invocation().api_key
    path = save(os.environ, address, api_key)
    out = output()
    document = {"controller": address, "file": str(path), "key_saved": api_key is not None}

    def human() -> None:
        out.line(f"the fleet's controller is {address}")
        if api_key is not None:
            out.line(f"its key is saved in {path}")

    out.show(document, human)


def _read_setting(key: str, *, here: bool) -> object:
    from borough.cli.session import town_folder
    from borough.config.global_file import read_global_setting
    from borough.config.town_file import read_town_setting

    found: object = read_town_setting(town_folder(), key) if here else read_global_setting(os.environ, key)
    return found


def _change_setting(key: str, value: str, *, here: bool) -> None:
    from borough.cli.session import town_folder
    from borough.config.global_file import change_global_setting
    from borough.config.town_file import change_town_setting

    if here:
        change_town_setting(town_folder(), key, value)
        say("a running server reads it when it starts anew: 'tt stop --server', then 'tt start'")
    else:
        change_global_setting(os.environ, key, value)


def _show_settings(*, here: bool) -> None:
    from borough.cli.session import town_folder
    from borough.config.global_file import global_folder
    from borough.config.reading import read_toml

    path = town_folder() / "tinytown.toml" if here else global_folder(os.environ) / "config.toml"
    settings = read_toml(path) if path.exists() else {}
    rows = [(name, _shown(name, value)) for name, value in _flat(settings)]
    document = {"file": str(path), "settings": dict(rows)}
    output().show(document, lambda: output().table(("setting", "value"), rows, empty=f"{path} sets nothing"))


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in settings.items():
        rows.extend(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)])
    return rows


def _shown(name: str, value: object) -> object:
    secret = name.rpartition(".")[2] in {"password", "url"}
    return "****" if secret and value else _plain(value)


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool) else str(value)


@command("bootstrap", example="tt bootstrap")
@click.argument("version", required=False)
@click.option("-c", "--cli", metavar="CLI", help="Accepted for old scripts; has no meaning here.")
def bootstrap(*, version: str | None, cli: str | None) -> None:
    """Nothing is needed: the store comes with the package.

    VERSION and --cli are accepted for old scripts.
    """
    del version, cli
    document = {"needed": False, "why": "the Valkey server comes with the package and is started when it is needed"}
    output().show(document, lambda: output().line(f"nothing is needed: {document['why']}"))


@command("completion", example="tt completion bash > ~/.local/share/bash-completion/completions/tt")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(*, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise Usage(f"there is no completion for {shell}", resolution="choose bash, zsh or fish")
    root = click.get_current_context().find_root()
    # The base class's method: bash's own one runs bash to ask for its version.
    script = ShellComplete.source(kind(root.command, {}, root.info_name or "tt", "_TT_COMPLETE"))
    output().show({"shell": shell, "script": script}, lambda: click.echo(script))
