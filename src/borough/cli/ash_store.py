"""``ash agent``: agents that are installed by name."""

from pathlib import Path
from typing import Final

import click

from borough.cli.ash_session import AshGroup, ash_command, ask, manifest_text, member, show_done, show_table
from borough.cli.output import output

_HERE: Final = "borough.cli.ash_store"

agent = AshGroup(
    "agent",
    help="Installed agents: manifests that are known by name.",
    example="ash agent install manifest.yaml\nash agent run report-agent --task 'Summarize Q1'",
    table={
        "install": (f"{_HERE}:install", "Install an agent, over an older one of its name."),
        "list": (f"{_HERE}:list_installed", "List what is installed."),
        "ls": (f"{_HERE}:list_installed", "The same as list."),
        "remove": (f"{_HERE}:remove", "Forget one; what runs goes on."),
        "run": (f"{_HERE}:run", "Start one."),
        "capability-sheet": (
            f"{_HERE}:capability_sheet",
            "Say in Markdown what a manifest allows, without any daemon.",
        ),
    },
)


@ash_command("install", example="ash agent install manifest.yaml")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--dir", "folder", metavar="PATH", help="Where its program is.  [default: the daemon's own folder]")
def install(*, manifest: str, folder: str | None) -> None:
    """Install an agent, over an older one of its name."""
    made = ask(
        "AgentStoreInstall", manifest_yaml=manifest_text(manifest), dir=str(Path(folder).resolve()) if folder else None
    )
    output().show(made, lambda: output().line(f"Installed {made['name']} {made['version']} in {made['install_dir']}"))


@ash_command("list", example="ash agent list")
def list_installed() -> None:
    """List what is installed."""
    show_table(
        ask("AgentStoreList")["agents"],
        [
            ("name", member("name")),
            ("version", member("version")),
            ("runtime", member("runtime")),
            ("install dir", member("install_dir")),
            ("installed at", member("installed_at")),
        ],
        empty="nothing is installed; install an agent with 'ash agent install manifest.yaml'",
    )


@ash_command("remove", example="ash agent remove report-agent")
@click.argument("name")
def remove(*, name: str) -> None:
    """Forget an installed agent; what runs of it goes on."""
    show_done("AgentStoreRemove", f"Removed {name}", name=name)


@ash_command("run", example="ash agent run report-agent --task 'Summarize Q1'")
@click.argument("name")
@click.option("--task", metavar="TEXT", help="Instead of the manifest's task.")
def run(*, name: str, task: str | None) -> None:
    """Start an installed agent."""
    made = ask("AgentStoreRun", name=name, task_override=task)
    output().show(made, lambda: output().line(f"Spawned agent '{name}' → {made['agent_id']}"))


@ash_command("capability-sheet", example="ash agent capability-sheet manifest.yaml")
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def capability_sheet(*, manifest: str) -> None:
    """Say in Markdown what a manifest allows, without any daemon."""
    from borough.governance.capability_sheet import as_markdown
    from borough.governance.manifest_reading import parse_manifest

    text = as_markdown(parse_manifest(manifest_text(manifest)))
    output().show({"markdown": text}, lambda: output().block(text.rstrip("\n")))
