"""``borough demo-fleet``: three hosts on this machine, environments over them, two hosts killed, nothing left."""

import signal
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import click

from borough.cli.commands import command
from borough.cli.demo_hosts import IMAGE, SERVICE_PORT, DemoFleet, wait_for
from borough.cli.errors import FAILED, OK, Failed
from borough.cli.output import Output, output, say
from borough.client.fleet import FleetClient

_HOSTS: Final = 3
_MACHINES: Final = 6
_SERVE: Final = (
    'mkdir -p /srv/www; echo "hello from $(hostname)" > /srv/www/index.html; '
    f"exec httpd -f -p {SERVICE_PORT} -h /srv/www"
)
_VM: Final[dict[str, object]] = {
    "image": IMAGE, "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 100, "ports": [SERVICE_PORT],
    "command": ["/bin/sh", "-c", _SERVE],
}  # fmt: skip
_OTHERS_SIZE: Final = {"docker": {"mem": 64, "disk": 100}, "qemu": {"mem": 160, "disk": 200}}
_SHORT_LIFE_S: Final = 5
_SOON_S: Final = 30.0
_OFFERED_S: Final = 90.0
"""More than it takes a host to find out what it can boot, and the controller to hear of it."""
_SILENCE_S: Final = 120.0
"""More than a host may be silent before its machines are called unknown."""


@dataclass(slots=True)
class Story:
    """What was seen, in the order in which it was."""

    began: float = field(default_factory=time.monotonic)
    steps: list[dict[str, object]] = field(default_factory=list)

    def seen(self, what: str) -> None:
        """Tell and keep one more thing that was seen."""
        at_s = round(time.monotonic() - self.began, 1)
        self.steps.append({"at_s": at_s, "seen": what})
        say(f"{at_s:6.1f} s  {what}")


@command("demo-fleet", example="borough demo-fleet\nborough demo-fleet --json")
@click.pass_context
def demo_fleet(context: click.Context) -> None:
    """Let three hosts carry environments, kill two, and watch.

    Three host daemons and a controller on this machine, each with a folder and a port of its own; machines that are
    processes, and on the first host containers and virtual machines too, where this machine can make them. Its network
    is left alone: as root, all is in a network namespace of its own. At the end it is checked that no process, mount,
    link, control group, port or file is left.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    story = Story()
    fleet = DemoFleet(hosts=_HOSTS)
    with fleet, fleet.client() as controller:
        _play(fleet, controller, story)
    left = fleet.left()
    if not left:
        story.seen("nothing is left: no process, mount, link, control group, port or file")
    document = {"steps": story.steps, "left": left, "took_s": round(time.monotonic() - story.began, 1)}
    output().show(document, lambda: _tell(output(), document))
    context.exit(FAILED if left else OK)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _play(fleet: DemoFleet, controller: FleetClient, story: Story) -> None:
    for name in fleet.names:
        controller.post("/api/hosts", {"addr": fleet.address(name)})
    story.seen(f"{_HOSTS} hosts registered: {', '.join(fleet.names)}")
    vms = _environment(fleet, controller, "web", _MACHINES)
    by_host = {name: [vm for vm in vms if vm["host_id"] == name] for name in fleet.names}
    story.seen("web: " + ", ".join(f"{len(found)} machines on {name}" for name, found in by_host.items()))
    if not all(by_host.values()):
        raise Failed("the machines were not spread over all hosts")
    for vm in vms:
        _answers(vm)
    story.seen(f"each of the {len(vms)} machines answers at its published port")
    _inside(controller, vms[0], story)
    others = _other_engines(fleet, controller, story)
    _readopted(fleet, controller, by_host[fleet.names[1]], story)
    if others:
        _others_readopted(fleet, controller, others, story)
    fleet.switch_off(fleet.names[2])
    story.seen(f"{fleet.names[2]} is dead, its machines too (SIGKILL)")
    _expires(fleet, controller, story)
    _given_up(controller, fleet.names[2], by_host, story)
    for name in ("web", *(["mixed"] if others else [])):
        controller.ask("DELETE", f"/api/envs/{name}")
    for name in fleet.names[:2]:
        if fleet.guests(name):
            raise Failed(f"{name} still has processes of machines that were deleted")
        controller.ask("DELETE", f"/api/hosts/{name}")
    story.seen("all is deleted, the hosts are removed, no process of theirs runs")


def _environment(
    fleet: DemoFleet, controller: FleetClient, name: str, count: int, **more: object
) -> list[dict[str, Any]]:
    body = {"id": name, "owner": "demo", "ssh_keys": [], "vms": [_VM] * count, "placing": {"spread": "spread"}, **more}
    made = controller.post("/api/envs", body)
    for warning in made.get("warnings", []):
        say(f"warning: {warning}")
    vms: list[dict[str, Any]] = made["vms"]
    fleet.ports |= {port for vm in vms for port in vm["port_map"].values()}
    return vms


def _other_engines(fleet: DemoFleet, controller: FleetClient, story: Story) -> list[dict[str, Any]]:
    """Make a machine of every other engine that is here, with a service in it that is reached through its port."""
    for engine, why in fleet.engines.missing.items():
        story.seen(f"no {engine} here: {why}")
    images, host = fleet.engines.images, fleet.names[0]
    if not images:
        return []

    def offered() -> bool:
        return set(images) <= set(controller.get(f"/api/hosts/{host}")["engines"])

    wait_for(offered, what=f"{host} to offer {' and '.join(images)}", within_s=_OFFERED_S)
    vms = [
        {"image": image, "engine": engine, "cpu": 1, "ports": [SERVICE_PORT], **_OTHERS_SIZE[engine]}
        for engine, image in images.items()
    ]
    body = {"id": "mixed", "owner": "demo", "ssh_keys": [], "vms": vms}
    answer = controller.post("/api/envs", body)
    made: list[dict[str, Any]] = answer["vms"]
    if len(made) != len(vms):
        raise Failed("not every engine made its machine", reason="; ".join(answer["warnings"]))
    for vm in made:
        fleet.ports |= set(vm["port_map"].values())
        _served(controller, vm)
        _answers(vm, hello=b"hello\n")
        story.seen(f"{vm['id']} of {vm['engine']} on {vm['host_id']} answers at its published port")
        _inside(controller, vm, story)
    return made


def _served(controller: FleetClient, vm: dict[str, Any]) -> None:
    """Start a service inside; a virtual machine runs what its image starts, and is told the rest."""
    serve = f"mkdir -p /srv/www; echo hello > /srv/www/index.html; busybox httpd -p {SERVICE_PORT} -h /srv/www"
    _said(controller, vm, "sh", "-c", serve)


def _others_readopted(fleet: DemoFleet, controller: FleetClient, vms: list[dict[str, Any]], story: Story) -> None:
    name = fleet.names[0]
    before = [_since(controller, vm) for vm in vms]
    fleet.kill(name)
    for vm in vms:
        if vm["engine"] == "qemu":  # a container runtime goes on publishing, and so does QEMU
            _answers(vm, hello=b"hello\n")
    fleet.start_host(name)
    for vm in vms:
        _answers(vm, hello=b"hello\n")
    if before != [_since(controller, vm) for vm in vms]:
        raise Failed(f"machines of {name} were started anew")
    story.seen(f"{name} was killed and is back; its {' and '.join(vm['engine'] for vm in vms)} guests ran on")


def _since(controller: FleetClient, vm: dict[str, Any]) -> tuple[str, str]:
    """Return what is another after a new start of a machine: its kernel's boot, and the start of its first process."""
    boot, first = _said(controller, vm, "cat", "/proc/sys/kernel/random/boot_id", "/proc/1/stat").splitlines()
    return boot, first.rpartition(")")[2].split()[19]


def _answers(vm: dict[str, Any], *, hello: bytes | None = None) -> None:
    port = vm["port_map"][str(SERVICE_PORT)]
    expected = hello or f"hello from {vm['id']}\n".encode()

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return bool(answer.read() == expected)
        except OSError:
            return False

    wait_for(answers, what=f"{vm['id']} to answer at port {port}", within_s=_SOON_S)


def _inside(controller: FleetClient, vm: dict[str, Any], story: Story) -> None:
    said = _said(controller, vm, "uname", "-n")
    story.seen(f"exec in {vm['id']}: its name is {said.strip()}")
    content = b"copied in\n" * 1000
    controller.write(vm["id"], "/srv/www/copied.txt", [content])
    if b"".join(controller.read(vm["id"], "/srv/www/copied.txt")) != content:
        raise Failed("the file that was copied in came back otherwise")
    story.seen(f"a file of {len(content)} bytes was copied in and out again")


def _said(controller: FleetClient, vm: dict[str, Any], *argv: str) -> str:
    parts = list(controller.execute(vm["id"], {"argv": list(argv)}))
    if parts[-1].exit_code != 0:
        raise Failed(f"{argv[0]} in {vm['id']} ended with {parts[-1].exit_code}")
    return b"".join(part.data for part in parts if part.stream == "stdout").decode()


def _readopted(fleet: DemoFleet, controller: FleetClient, vms: list[dict[str, Any]], story: Story) -> None:
    name = vms[0]["host_id"]
    before = fleet.guests(name)
    pid = fleet.kill(name)
    alive = fleet.guests(name)
    if not alive or not set(before) <= set(alive):
        raise Failed(f"machines of {name} ended with its daemon")
    story.seen(f"the daemon of {name} (pid {pid}) was killed; its {len(alive)} processes of machines live on")
    fleet.start_host(name)
    for vm in vms:
        _answers(vm)
        _said(controller, vm, "cat", "/srv/www/index.html")
    if not set(before) <= set(fleet.guests(name)):
        raise Failed(f"machines of {name} were started anew")
    story.seen(f"{name} is back and has found its machines again: the same processes, the same ports")


def _expires(fleet: DemoFleet, controller: FleetClient, story: Story) -> None:
    # Placed where there are hosts: the dead one is not known to be dead yet, and may be asked in vain.
    controller.post(f"/api/hosts/{fleet.names[2]}/cordon")
    _environment(fleet, controller, "brief", 2, lifetime=_SHORT_LIFE_S)
    story.seen(f"brief: 2 machines that may live for {_SHORT_LIFE_S} s")
    wait_for(_gone(controller, "brief"), what="brief to expire", within_s=_SOON_S)
    story.seen("brief has expired, with its machines")


def _gone(controller: FleetClient, name: str) -> Callable[[], bool]:
    return lambda: all(each["id"] != name for each in controller.get("/api/envs"))


def _given_up(controller: FleetClient, name: str, by_host: dict[str, list[dict[str, Any]]], story: Story) -> None:
    lost = {vm["id"] for vm in by_host[name]}

    def offline() -> bool:
        return bool(controller.get(f"/api/hosts/{name}")["state"] == "offline")

    say(f"waiting until {name} has been silent for long enough …")
    wait_for(offline, what=f"{name} to be called offline", within_s=_SILENCE_S)
    states = {vm["id"]: vm["state"] for vm in controller.get("/api/envs/web")["vms"]}
    if {states[vm_id] for vm_id in lost} != {"unknown"}:
        raise Failed(f"machines of a silent host are unknown, not {states}")
    story.seen(f"{name} is offline, its {len(lost)} machines are unknown; all others run")
    controller.post(f"/api/hosts/{name}/detach")
    kept = {vm["id"] for vm in controller.get("/api/envs/web")["vms"]}
    if kept & lost or len(kept) != _MACHINES - len(lost):
        raise Failed(f"web should have lost exactly the machines of {name}")
    story.seen(f"{name} was given up: web goes on with {len(kept)} machines")


def _tell(out: Output, document: dict[str, Any]) -> None:
    out.line(f"{len(document['steps'])} things were seen in {document['took_s']} s")
    for what in document["left"]:
        out.line(f"left: {what}")
