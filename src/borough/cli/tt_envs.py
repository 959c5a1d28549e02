"""``tt env``: environments, machines that are made, stopped, deleted and expired together."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.errors import Failed, Usage
from borough.cli.fleet_session import LONG_TIMEOUT_S, begun_text, controller, finished, wait_option
from borough.cli.output import Output, output, warn
from borough.cli.text import duration
from borough.cli.tt_hosts import ports_text
from borough.client.urls import segment
from borough.fleet.engines import parse_engine

_HERE: Final = "borough.cli.tt_envs"
_COUNT: Final = click.IntRange(min=1)
_PORT: Final = click.IntRange(1, 65_535)

env = LazyGroup(
    "env",
    help="Environments of machines: create, clone, list, show, stop, start, extend …",
    example="tt env create web -i nginx --engine docker -p 80\ntt env show web",
    table={
        "create": (f"{_HERE}:create", "Create an environment."),
        "clone": ("borough.cli.tt_clones:clone", "Create an environment from a snapshot of another."),
        "snapshot": ("borough.cli.tt_clones:snapshot", "Keep the present state of every machine of an environment."),
        "list": (f"{_HERE}:list_envs", "List the environments."),
        "show": (f"{_HERE}:show", "Show an environment with its machines."),
        "delete": (f"{_HERE}:delete", "Delete an environment, its machines and their disks."),
        "stop": (f"{_HERE}:stop", "Stop the machines of an environment."),
        "start": (f"{_HERE}:start", "Start the machines of an environment."),
        "extend": (f"{_HERE}:extend", "Give an environment more time."),
    },
)


@command(
    "create",
    example="tt env create web -i nginx --engine docker -p 80\ntt env create ci -i root --engine bwrap --dup 3",
)
@click.argument("name")
@click.option("-i", "--image", "images", multiple=True, metavar="IMG", help="What to start; repeatable.")
@click.option("--from", "origin", metavar="VM@SNAPSHOT", help="Make them from a machine's snapshot, not an image.")
@click.option("--engine", default="qemu", show_default=True, metavar="ENGINE", help="What makes the machines.")
@click.option("--cpu", type=_COUNT, help="Processors of each.  [default: 2]")
@click.option("--mem", type=_COUNT, metavar="MIB", help="Memory of each.  [default: 1024]")
@click.option("--disk", type=_COUNT, metavar="MIB", help="Disk of each.  [default: 40960]")
@click.option("--dup", type=_COUNT, default=1, show_default=True, metavar="N", help="How many of each image.")
@click.option("-p", "--port", "ports", type=_PORT, multiple=True, help="A port to publish; 22 always is; repeatable.")
@click.option("--lifetime", type=click.IntRange(min=0), metavar="SEC", help="Until it expires.  [default: 21600]")
@click.option("--deny-outgoing", is_flag=True, help="Let the machines reach nothing outside.")
@click.option("--allow", "allowed", multiple=True, metavar="HOST:PORT", help="All that they may reach; repeatable.")
@click.option("--owner", metavar="NAME", help="Whose it is.  [default: $USER]")
@click.option("--ssh-key", "ssh_keys", multiple=True, metavar="KEY|FILE", help="Who may log in; repeatable.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="To find it by; repeatable.")
@click.option("--spread", is_flag=True, help="Use as many hosts as can be, instead of as few.")
@click.option("--private", is_flag=True, help="Let only the machines of this environment reach each other.")
@click.option("--wait-for-capacity", "wait_s", type=_COUNT, metavar="SEC", help="Wait so long for room, in turn.")
@click.option("--dry-run", is_flag=True, help="Only say where the machines would go, and why.")
@wait_option
def create(
    *,
    name: str,
    images: tuple[str, ...],
    origin: str | None,
    engine: str,
    cpu: int | None,
    mem: int | None,
    disk: int | None,
    dup: int,
    ports: tuple[int, ...],
    lifetime: int | None,
    deny_outgoing: bool,
    allowed: tuple[str, ...],
    owner: str | None,
    ssh_keys: tuple[str, ...],
    labels: tuple[str, ...],
    spread: bool,
    private: bool,
    wait_s: int | None,
    dry_run: bool,
    wait: bool,
) -> None:
    """Create an environment."""
    sizes = {"cpu": cpu, "mem": mem, "disk": disk}
    _check_source(images, origin, shaped=bool(any(sizes.values()) or ports or deny_outgoing or allowed))
    vm = {
        "engine": parse_engine(engine).value,
        **{what: size for what, size in sizes.items() if size is not None},
        "ports": list(ports),
        "deny_outgoing": deny_outgoing,
        **({"egress_allowlist": list(allowed)} if allowed else {}),
    }
    body: dict[str, Any] = {
        "id": name,
        "owner": owner or os.environ.get("USER") or "default",
        "ssh_keys": [key_text(key, os.environ) for key in ssh_keys],
        "vms": [{"image": image, **vm} for image in images for _ in range(dup)],
    }
    extras = {
        "lifetime": lifetime,
        "labels": dict(map(label, labels)) or None,
        "placing": {"spread": "spread"} if spread else None,
        "private_network": private or None,
        "wait_for_capacity": wait_s,
        "source": None if origin is None else {**source("vm_id", origin), "copies": dup},
    }
    body |= {what: value for what, value in extras.items() if value is not None}
    if dry_run:
        preview_env(body)
    else:
        create_env(body, wait=wait)


def _check_source(images: tuple[str, ...], origin: str | None, *, shaped: bool) -> None:
    """Raise ``Usage`` unless there are images or a snapshot; what is ``shaped`` cannot come from a snapshot."""
    if bool(images) == (origin is not None):
        raise Usage(
            "an environment is made from images or from a snapshot",
            reason="there is neither --image nor --from, or both",
            resolution="as in --image nginx, or --from 1b9d6bcd-bbf@first",
        )
    if origin is not None and shaped:
        raise Usage(
            "a clone has size, ports and way out of the machine that it is made from",
            reason="--cpu, --mem, --disk, --port, --deny-outgoing and --allow are for machines made from images",
            resolution="leave them out, or make the environment from an image",
        )


def create_env(body: dict[str, Any], *, wait: bool) -> None:
    """Create an environment of ``body`` and print it."""
    name, out = body["id"], output()
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        answer = fleet.post("/api/envs", body, query={"async": "1"})
        operation = finished(fleet, answer, wait=wait)
        if operation is not None and not wait:
            out.show(operation, lambda: out.line(begun_text(operation)))
            return
        # A controller of the reference's kind has done it all within the request.
        detail = answer if operation is None else fleet.get(f"/api/envs/{segment(name)}")
    told = operation["errors"] if operation else {}
    detail["warnings"] = [*detail.get("warnings", []), *(f"{what}: {why}" for what, why in told.items())]
    if operation is None:
        for warning in detail["warnings"]:
            warn(warning)
    out.show(detail, lambda: _created(out, detail))


def _created(out: Output, detail: dict[str, Any]) -> None:
    out.line(f"created environment {detail['env']['id']}")
    out.line(f"VMs: {len(detail['vms'])}")
    for vm in detail["vms"]:
        out.line(f"  {vm['id']} [{vm['engine']}] {vm['image']} {vm['ip']} {ports_text(vm)}")


def preview_env(body: dict[str, Any]) -> None:
    """Print where the machines of ``body`` would go; raises ``Failed`` when nowhere."""
    with controller() as fleet:
        found = fleet.post("/api/envs", body, query={"dry_run": "1"})
    out = output()
    out.show(found, lambda: _print_preview(out, found))
    if found.get("refused"):
        why = "; ".join(f"{host}: {reason}" for host, reason in found.get("hosts", {}).items())
        raise Failed(
            f"it cannot be placed: {found['refused']}",
            code="unschedulable",
            reason=why or "there is no host that could take it",
            resolution="see 'tt host list'; ask for less, or add a host",
        )


def _print_preview(out: Output, found: dict[str, Any]) -> None:
    rows = [(each["image"], each["engine"], each["host_id"], each["why"]) for each in found["placed"]]
    out.table(("image", "engine", "host", "why"), rows, empty="nothing would be placed")


@command("list", example="tt env list --owner alice\ntt env list --label team=web")
@click.option("--owner", metavar="NAME", help="Only those of this owner.")
@click.option("--label", "labels", metavar="NAME=VALUE", help="Only those with this label.")
def list_envs(*, owner: str | None, labels: str | None) -> None:
    """List the environments."""
    query = {"owner": owner, "label": labels}
    with controller() as fleet:
        found = list(fleet.pages("/api/envs", query))
    output().show({"envs": found, "count": len(found)}, lambda: _print_envs(output(), found))


def _print_envs(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("name", "owner", "state", "vms", "expires"),
        [(each["id"], each["owner"], each["state"], len(each["vm_ids"]), expiry(out, each)) for each in found],
        empty="there are no environments; make one with 'tt env create NAME --image IMG'",
    )


def expiry(out: Output, found: dict[str, Any]) -> str:
    """Return when an environment expires: for people how long that is, in a pipe the second."""
    at = int(found["expires_at"])
    if not at:
        return "never"
    from datetime import timedelta

    left = at - int(time.time())
    return str(at) if not out.terminal else f"in {duration(timedelta(seconds=left))}" if left > 0 else "now"


@command("show", example="tt env show web")
@click.argument("name")
def show(*, name: str) -> None:
    """Show an environment with its machines."""
    with controller() as fleet:
        found = fleet.get(f"/api/envs/{segment(name)}")
    output().show(found, lambda: _print_env(output(), found))


def _print_env(out: Output, found: dict[str, Any]) -> None:
    about, vms = found["env"], found["vms"]
    out.fields(
        [
            ("Name", about["id"]),
            ("Owner", about["owner"]),
            ("State", about["state"]),
            ("VMs", len(vms)),
            ("Expires", expiry(out, about)),
        ]
    )
    out.table(
        ("id", "image", "engine", "state", "ip", "ports"),
        [(vm["id"], vm["image"], vm["engine"], vm["state"], vm["ip"], ports_text(vm)) for vm in vms],
        empty="it has no machines",
    )
    for vm in vms:
        if vm.get("error"):
            warn(f"{vm['id']}: {vm['error']}")


@command("delete", example="tt env delete web")
@click.argument("name")
@wait_option
def delete(*, name: str, wait: bool) -> None:
    """Delete an environment, its machines and their disks."""
    _act(name, "DELETE", "", "deleted", wait=wait)


@command("stop", example="tt env stop web")
@click.argument("name")
@wait_option
def stop(*, name: str, wait: bool) -> None:
    """Stop the machines of an environment; their disks stay."""
    _act(name, "POST", "/stop", "stopped", wait=wait)


@command("start", example="tt env start web")
@click.argument("name")
@wait_option
def start(*, name: str, wait: bool) -> None:
    """Start the machines of an environment."""
    _act(name, "POST", "/start", "started", wait=wait)


def _act(name: str, method: str, path: str, told: str, *, wait: bool) -> None:
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        answer = fleet.ask(method, f"/api/envs/{segment(name)}{path}", query={"async": "1"})
        operation = finished(fleet, answer, wait=wait)
    text = begun_text(operation) if operation and not wait else f"{told} environment {name}"
    output().show(operation or {told: name}, lambda: output().line(text))


@command("extend", example="tt env extend web --lifetime 7200")
@click.argument("name")
@click.option("--lifetime", type=click.IntRange(min=1), required=True, metavar="SEC", help="From now on.")
def extend(*, name: str, lifetime: int) -> None:
    """Give an environment more time."""
    with controller() as fleet:
        found = fleet.ask("PATCH", f"/api/envs/{segment(name)}", body={"lifetime": lifetime})
    for warning in found.get("warnings", []):
        warn(warning)
    out = output()
    out.show(found, lambda: out.line(f"environment {name} expires {expiry(out, found['env'])}"))


def key_text(given: str, environ: Mapping[str, str]) -> str:
    """Return a public key as it is sent; what looks like a file's name is read.

    Raises:
        Usage: the file cannot be read.
    """
    is_file = given.endswith(".pub") or given.startswith(("/", "~/"))
    if not is_file or given.startswith("ssh-"):
        return given
    path = Path(environ.get("HOME") or "/", given[2:]) if given.startswith("~/") else Path(given)
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise Usage(
            f"the key file {given} cannot be read",
            reason=getattr(problem, "strerror", None) or "it is not text",
            resolution="name a public key's file, as in ~/.ssh/id_ed25519.pub, or give the key itself",
        ) from None


def source(what: str, given: str) -> dict[str, Any]:
    """Return the snapshot of a machine or environment (``what``) as it is sent; raises ``Usage``."""
    name, mark, snapshot = given.rpartition("@")
    if not name or not mark or not snapshot:
        raise Usage(
            f"{given!r} names no snapshot",
            reason="a snapshot is named with whose it is, as NAME@SNAPSHOT",
            resolution="list a machine's: tt vm snapshots 1b9d6bcd-bbf",
        )
    return {what: name, "snapshot": snapshot}


def label(given: str) -> tuple[str, str]:
    """Return a label's name and value; raises ``Usage``."""
    name, mark, value = given.partition("=")
    if not name or not mark:
        raise Usage(f"{given!r} is no label", reason="a label is NAME=VALUE", resolution="as in --label team=web")
    return name, value
