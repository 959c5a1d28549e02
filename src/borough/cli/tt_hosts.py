"""``tt host``: the machines that the fleet's guests live on."""

from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command
from borough.cli.fleet_session import controller, finished
from borough.cli.output import Output, output, say
from borough.client.urls import segment

_HERE: Final = "borough.cli.tt_hosts"

host = LazyGroup(
    "host",
    help="The hosts of the fleet: add, list, show, cordon, drain, remove …",
    example="tt host add 10.0.0.2:9100\ntt host list",
    table={
        "add": (f"{_HERE}:add", "Add a host to the fleet."),
        "list": (f"{_HERE}:list_hosts", "List the hosts."),
        "show": (f"{_HERE}:show", "Show a host."),
        "remove": (f"{_HERE}:remove", "Remove a host that has no machines."),
        "cordon": (f"{_HERE}:cordon", "Place nothing new on a host."),
        "uncordon": (f"{_HERE}:uncordon", "Place machines on a host again."),
        "drain": (f"{_HERE}:drain", "Place nothing new on a host, until nothing is left on it."),
        "detach": (f"{_HERE}:detach", "Forget a host that is dead, with its machines."),
    },
)


@command("add", example="tt host add 10.0.0.2:9100\nTT_JOIN_TOKEN=… tt host add 10.0.0.2:9100")
@click.argument("addr")
@click.option(
    "--token",
    envvar="TT_JOIN_TOKEN",
    metavar="TOKEN",
    help="The host's join token; better in TT_JOIN_TOKEN, where other users cannot see it.  [default: none]",
)
@click.option("--token-file", type=click.File("r"), help="Where the join token is; -: standard input.")
def add(*, addr: str, token: str | None, token_file: Any | None) -> None:
    """Add a host to the fleet; or, with a new token, trust it anew.

    With a join token (tt-agent --invite prints it on the host) the host is known by its certificate, and is given
    nothing but a credential of its own; without one it is told the fleet's key.
    """
    given = token if token_file is None else token_file.read().strip()
    body = {"addr": addr} if given is None else {"addr": addr, "token": given}
    with controller() as fleet:
        found = fleet.post("/api/hosts", body)
    output().show(found, lambda: _added(output(), found))


def _added(out: Output, found: dict[str, Any]) -> None:
    resource = found["resource"]
    out.line(f"added host {found['id']} ({found['addr']})")
    out.fields(
        [
            ("Engines", ", ".join(found["engines"]) or "none"),
            ("Storage", found["storage"]),
            ("CPU", resource["cpu_total"]),
            ("RAM", f"{resource['mem_total']} MB"),
            ("Disk", f"{resource['disk_total']} MB"),
        ]
    )
    for warning in found.get("warnings", []):
        say(f"warning: {warning}")


@command("list", example="tt host list\ntt host list --json")
def list_hosts() -> None:
    """List the hosts."""
    with controller() as fleet:
        found = fleet.get("/api/hosts")
    output().show({"hosts": found, "count": len(found)}, lambda: _print_hosts(output(), found))


def _print_hosts(out: Output, found: list[dict[str, Any]]) -> None:
    out.table(
        ("id", "addr", "state", "cpu", "mem(mb)", "vms"),
        [
            (
                each["id"],
                each["addr"],
                state_of(each),
                f"{each['resource']['cpu_used']}/{each['resource']['cpu_total']}",
                f"{each['resource']['mem_used']}/{each['resource']['mem_total']}",
                each["resource"]["vm_count"],
            )
            for each in found
        ],
        empty="there are no hosts; add one with 'tt host add HOST:PORT'",
    )


def state_of(found: dict[str, Any]) -> str:
    """Return a host's state in a word, what its operator said of it included."""
    if found["state"] != "online":
        return str(found["state"])
    return "draining" if found.get("draining") else "cordoned" if found.get("cordoned") else "online"


@command("show", example="tt host show rack1")
@click.argument("host_id", metavar="ID")
def show(*, host_id: str) -> None:
    """Show a host."""
    with controller() as fleet:
        found = fleet.get(f"/api/hosts/{segment(host_id)}")
    output().show(found, lambda: _print_host(output(), found))


def _print_host(out: Output, found: dict[str, Any]) -> None:
    resource = found["resource"]
    out.fields(
        [
            ("Host", found["id"]),
            ("Address", found["addr"]),
            ("State", state_of(found)),
            ("Engines", ", ".join(found["engines"]) or "none"),
            ("Storage", found["storage"]),
            ("CPU", f"{resource['cpu_used']}/{resource['cpu_total']}"),
            ("Memory", f"{resource['mem_used']}/{resource['mem_total']} MB"),
            ("Disk", f"{resource['disk_used']}/{resource['disk_total']} MB"),
            ("VMs", resource["vm_count"]),
            ("Labels", ", ".join(f"{name}={value}" for name, value in found.get("labels", {}).items()) or None),
            ("Error", found.get("error")),
        ]
    )
    for offer in found.get("offers", []):
        lacking = "; ".join(f"no {name}: {why}" for name, why in offer["reasons"].items())
        out.line(f"{offer['engine']} {offer['version']}: {', '.join(offer['capabilities'])}")
        if lacking:
            out.line(f"  {lacking}")
    for warning in found.get("warnings", []):
        say(f"warning: {warning}")


@command("remove", example="tt host remove rack1")
@click.argument("host_id", metavar="ID")
def remove(*, host_id: str) -> None:
    """Remove a host that has no machines."""
    with controller() as fleet:
        fleet.ask("DELETE", f"/api/hosts/{segment(host_id)}")
    output().show({"removed": host_id}, lambda: output().line(f"removed host {host_id}"))


@command("cordon", example="tt host cordon rack1")
@click.argument("host_id", metavar="ID")
def cordon(*, host_id: str) -> None:
    """Place nothing new on a host."""
    _act(host_id, "cordon", "takes nothing new")


@command("uncordon", example="tt host uncordon rack1")
@click.argument("host_id", metavar="ID")
def uncordon(*, host_id: str) -> None:
    """Place machines on a host again."""
    _act(host_id, "uncordon", "takes machines again")


def _act(host_id: str, verb: str, told: str) -> None:
    with controller() as fleet:
        found = fleet.post(f"/api/hosts/{segment(host_id)}/{verb}")
    output().show(found, lambda: output().line(f"host {found['id']} {told}"))


@command("drain", example="tt host drain rack1\ntt host drain rack1 --machines stop --timeout 600 --wait")
@click.argument("host_id", metavar="ID")
@click.option(
    "--machines", type=click.Choice(["wait", "stop", "delete"]), default="wait", show_default=True,
    help="Let them leave with their environments, stop them there, or delete them with their disks.",
)  # fmt: skip
@click.option("--timeout", type=click.IntRange(min=1), metavar="SEC", help="Give up after so long.  [default: 86400]")
@click.option("--wait", is_flag=True, help="Wait for the end, and say how far it is.")
def drain(*, host_id: str, machines: str, timeout: int | None, wait: bool) -> None:
    """Place nothing new on a host, until nothing is left on it; no machine is carried to another."""
    body = {"machines": machines, **({} if timeout is None else {"timeout": timeout})}
    with controller() as fleet:
        found = fleet.post(f"/api/hosts/{segment(host_id)}/drain", body)
        if not wait:
            output().show(found, lambda: _drained(output(), found))
            return
        operation = finished(fleet, fleet.operation(found["operation_id"], wait_s=0), wait=True)
    output().show(operation or {}, lambda: output().line(f"host {host_id} is drained"))


def _drained(out: Output, found: dict[str, Any]) -> None:
    left = found["vms"]
    say(f"host {found['host']['id']} takes nothing new; {len(left)} machines are still on it")
    print_vms(out, left, empty="nothing is left on it: 'tt host remove' may remove it")


@command("detach", example="tt host detach rack1 --yes")
@click.argument("host_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def detach(*, host_id: str, yes: bool) -> None:
    """Forget a host that is dead, with its machines.

    What still runs there, if it comes back, is left to whoever has the machine.
    """
    from borough.cli.output import confirmed

    if not yes and not confirmed(f"Forget host {host_id} and every machine that it had?"):
        raise click.Abort
    with controller() as fleet:
        lost = fleet.post(f"/api/hosts/{segment(host_id)}/detach")
    document = {"detached": host_id, "lost": lost}
    output().show(document, lambda: output().line(f"host {host_id} is forgotten with {len(lost)} machines"))


def print_vms(out: Output, found: list[dict[str, Any]], *, empty: str) -> None:
    """Print machines as a table."""
    out.table(
        ("id", "image", "engine", "state", "ip", "ports", "env", "host"),
        [
            (
                each["id"],
                each["image"],
                each["engine"],
                each["state"],
                each["ip"],
                ports_text(each),
                each["env_id"],
                each["host_id"],
            )
            for each in found
        ],
        empty=empty,
    )


def ports_text(vm: dict[str, Any]) -> str:
    """Return the published ports: ``20100->22, 20101->80``."""
    return ", ".join(f"{host_port}->{guest_port}" for guest_port, host_port in vm["port_map"].items())
