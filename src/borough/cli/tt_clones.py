"""``tt env clone`` and ``tt env snapshot``: environments that are kept as they are, and made again from that."""

import os
from typing import Any, Final

import click

from borough.cli.commands import command
from borough.cli.fleet_session import LONG_TIMEOUT_S, controller, wait_option
from borough.cli.output import output
from borough.cli.tt_envs import create_env, key_text, label, preview_env, source
from borough.client.urls import segment

_COUNT: Final = click.IntRange(min=1)


@command(
    "clone",
    example="tt env clone web@before-upgrade web2\ntt env clone web@good web3 --env TOKEN=… --ssh-key ~/.ssh/id.pub",
)
@click.argument("origin", metavar="NAME@SNAPSHOT")
@click.argument("name", metavar="NEW")
@click.option("--copies", type=_COUNT, default=1, show_default=True, metavar="N", help="How many of each machine.")
@click.option("-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; repeatable.")
@click.option("--ssh-key", "ssh_keys", multiple=True, metavar="KEY|FILE", help="Who may log in; repeatable.")
@click.option("--lifetime", type=click.IntRange(min=0), metavar="SEC", help="Until it expires.  [default: 21600]")
@click.option("--owner", metavar="NAME", help="Whose it is.  [default: $USER]")
@click.option("--dry-run", is_flag=True, help="Only say where the machines would go, and why.")
@wait_option
def clone(
    *,
    origin: str,
    name: str,
    copies: int,
    variables: tuple[str, ...],
    ssh_keys: tuple[str, ...],
    lifetime: int | None,
    owner: str | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Create an environment from a snapshot of another; variables and keys are not taken over."""
    body: dict[str, Any] = {
        "id": name,
        "owner": owner or os.environ.get("USER") or "default",
        "ssh_keys": [key_text(key, os.environ) for key in ssh_keys],
        "vms": [],
        "source": {**source("env_id", origin), "copies": copies, "env": dict(map(label, variables))},
    }
    if lifetime is not None:
        body["lifetime"] = lifetime
    if dry_run:
        preview_env(body)
    else:
        create_env(body, wait=wait)


@command("snapshot", example="tt env snapshot web before-upgrade")
@click.argument("name")
@click.argument("snapshot_name", metavar="SNAPSHOT")
def snapshot(*, name: str, snapshot_name: str) -> None:
    """Keep the present state of every machine of an environment, one after the other, under a name."""
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        machines = [vm["id"] for vm in fleet.get(f"/api/envs/{segment(name)}")["vms"]]
        kept = [
            {"vm": vm_id, **fleet.post(f"/api/vms/{segment(vm_id)}/snapshots", {"name": snapshot_name})}
            for vm_id in machines
        ]
    out = output()
    out.show({"snapshots": kept}, lambda: out.line(f"kept {snapshot_name} of {len(kept)} machines of {name}"))
