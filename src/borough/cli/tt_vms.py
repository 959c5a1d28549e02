"""``tt vm``: single machines; and ``tt exec``, ``tt logs``, ``tt ssh``: their inside."""

import json
import os
import shutil
import sys
from typing import Any, Final

import click

from borough.cli.commands import LazyGroup, command, invocation
from borough.cli.errors import Failed, Usage
from borough.cli.fleet_session import LONG_TIMEOUT_S, controller
from borough.cli.output import Output, output, say
from borough.cli.text import harmless_block
from borough.cli.tt_hosts import ports_text, print_vms
from borough.client.fleet import FleetClient, ended
from borough.client.urls import segment
from borough.core.errors import NotFound

_HERE: Final = "borough.cli.tt_vms"
_SSH_PORT: Final = "22"

vm = LazyGroup(
    "vm",
    help="Single machines: list, show, stop, start, pause, console, snapshots.",
    example="tt vm list\ntt vm show 1b9d6bcd-bbf",
    table={
        "list": (f"{_HERE}:list_vms", "List the machines."),
        "show": (f"{_HERE}:show", "Show a machine."),
        "stop": (f"{_HERE}:stop", "Stop a machine; its disk stays."),
        "start": (f"{_HERE}:start", "Start a stopped machine, or let a paused one go on."),
        "pause": (f"{_HERE}:pause", "Freeze a machine."),
        "console": (f"{_HERE}:console", "Type at a machine's serial console."),
        "snapshot": (f"{_HERE}:snapshot", "Keep a machine's present state under a name."),
        "snapshots": (f"{_HERE}:snapshots", "List the states that a machine can be returned to."),
        "restore": (f"{_HERE}:restore", "Return a machine to a snapshot."),
        "forget": (f"{_HERE}:forget", "Delete a snapshot of a machine."),
    },
)


@command("list", example="tt vm list --env web")
@click.option("--env", "env_id", metavar="NAME", help="Only those of this environment.")
@click.option("--host", "host_id", metavar="ID", help="Only those on this host.")
def list_vms(*, env_id: str | None, host_id: str | None) -> None:
    """List the machines."""
    with controller() as fleet:
        all_found = fleet.get(f"/api/envs/{segment(env_id)}")["vms"] if env_id else list(fleet.pages("/api/vms"))
    found = [each for each in all_found if host_id in (None, each["host_id"])]
    document = {"vms": found, "count": len(found)}
    output().show(document, lambda: print_vms(output(), found, empty="there are no such machines"))


@command("show", example="tt vm show 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def show(*, vm_id: str) -> None:
    """Show a machine."""
    with controller() as fleet:
        found = fleet.get(f"/api/vms/{segment(vm_id)}")
    output().show(found, lambda: _print_vm(output(), found))


def _print_vm(out: Output, found: dict[str, Any]) -> None:
    out.fields(
        [
            ("VM", found["id"]),
            ("Environment", found["env_id"]),
            ("Host", found["host_id"]),
            ("Image", found["image"]),
            ("Engine", found["engine"]),
            ("State", found["state"]),
            ("Wanted", found.get("desired")),
            ("CPU", found["cpu"]),
            ("Memory", f"{found['mem']} MB"),
            ("Disk", f"{found['disk']} MB" + (" (advisory)" if found.get("disk_limit") == "advisory" else "")),
            ("IP", found["ip"]),
            ("Ports", ports_text(found) or None),
            ("Error", found.get("error")),
        ]
    )


@command("stop", example="tt vm stop 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def stop(*, vm_id: str) -> None:
    """Stop a machine; its disk stays."""
    _act(vm_id, "stop")


@command("start", example="tt vm start 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def start(*, vm_id: str) -> None:
    """Start a stopped machine, or let a paused one go on."""
    _act(vm_id, "start")


@command("pause", example="tt vm pause 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def pause(*, vm_id: str) -> None:
    """Freeze a machine."""
    _act(vm_id, "pause")


@command("snapshot", example="tt vm snapshot 1b9d6bcd-bbf before-upgrade")
@click.argument("vm_id", metavar="VM")
@click.argument("name", metavar="SNAPSHOT")
def snapshot(*, vm_id: str, name: str) -> None:
    """Keep a machine's present state under a name."""
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        found = fleet.post(f"/api/vms/{segment(vm_id)}/snapshots", {"name": name})
    output().show(found, lambda: output().line(f"kept {name} of {vm_id}"))


@command("snapshots", example="tt vm snapshots 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def snapshots(*, vm_id: str) -> None:
    """List the states that a machine can be returned to, or cloned from."""
    with controller() as fleet:
        found = fleet.get(f"/api/vms/{segment(vm_id)}/snapshots")
    rows = [(each["name"], each["size_bytes"], "yes" if each["with_memory"] else "no") for each in found]
    out = output()
    out.show({"snapshots": found}, lambda: out.table(("name", "bytes", "memory"), rows, empty="it has no snapshots"))


@command("restore", example="tt vm restore 1b9d6bcd-bbf before-upgrade")
@click.argument("vm_id", metavar="VM")
@click.argument("name", metavar="SNAPSHOT")
def restore(*, vm_id: str, name: str) -> None:
    """Return a machine to a snapshot."""
    _act(vm_id, f"snapshots/{segment(name)}/restore")


@command("forget", example="tt vm forget 1b9d6bcd-bbf before-upgrade")
@click.argument("vm_id", metavar="VM")
@click.argument("name", metavar="SNAPSHOT")
def forget(*, vm_id: str, name: str) -> None:
    """Delete a snapshot of a machine; what was made from it stays as it is."""
    with controller() as fleet:
        fleet.ask("DELETE", f"/api/vms/{segment(vm_id)}/snapshots/{segment(name)}")
    output().show({"forgotten": name}, lambda: output().line(f"forgot {name} of {vm_id}"))


def _act(vm_id: str, verb: str) -> None:
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        found = fleet.post(f"/api/vms/{segment(vm_id)}/{verb}")
    output().show(found, lambda: output().line(f"{found['id']} is {found['state']}"))


@command("exec", example="tt exec 1b9d6bcd-bbf -- uname -a\ntt exec -it 1b9d6bcd-bbf -- sh")
@click.argument("vm_id", metavar="VM")
@click.argument("argv", nargs=-1, required=True, metavar="-- CMD …")
@click.option("-i", "--stdin", "with_stdin", is_flag=True, help="Pass standard input on: whole, with -t as it comes.")
@click.option("-t", "--tty", "with_terminal", is_flag=True, help="Run it at a terminal: yours.")
@click.option("-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable; repeatable.")
@click.option("-w", "--cwd", metavar="PATH", help="The folder inside.")
@click.option("-u", "--user", metavar="NAME", help="The user inside.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SEC", help="End it after so long.")
@click.pass_context
def execute(
    context: click.Context,
    *,
    vm_id: str,
    argv: tuple[str, ...],
    with_stdin: bool,
    with_terminal: bool,
    variables: tuple[str, ...],
    cwd: str | None,
    user: str | None,
    timeout: float | None,
) -> None:
    """Run a command inside a machine; its exit code becomes this one's."""
    from borough.cli.tt_envs import label

    order: dict[str, object] = {"argv": list(argv), "env": dict(map(label, variables))}
    order |= {
        name: value for name, value in (("cwd", cwd), ("user", user), ("timeout_s", timeout)) if value is not None
    }
    if with_terminal:
        context.exit(_at_terminal(vm_id, order, typed=with_stdin))
    stdin = sys.stdin.buffer.read() if with_stdin else b""
    with controller() as fleet:
        context.exit(_run(fleet, vm_id, order, stdin))


def _at_terminal(vm_id: str, order: dict[str, object], *, typed: bool) -> int:
    from borough.cli import terminal

    if invocation().json:
        raise Usage("what comes from a terminal is no document", resolution="leave out either -t or --json")
    terminal.check_is_one()
    with controller() as fleet, fleet.terminal(vm_id, order | {"tty": _size(*terminal.size())}) as opened:
        last = terminal.lend(opened, typed=typed, resize=lambda *size: json.dumps(_size(*size)))
    return ended(last)


def _size(rows: int, columns: int) -> dict[str, int]:
    return {"rows": rows, "cols": columns}


@command("console", example="tt vm console 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
def console(*, vm_id: str) -> None:
    """Type at a machine's serial console; Ctrl-] leaves it."""
    from borough.cli import terminal

    if invocation().json:
        raise Usage("a console is no document", resolution="leave --json out, or read it with 'tt logs --json'")
    terminal.check_is_one()
    with controller() as fleet, fleet.console(vm_id) as opened:
        say(f"at the console of {vm_id}; Ctrl-] leaves it")
        last = terminal.lend(opened, leave=terminal.LEAVE, resize=lambda *size: json.dumps(_size(*size)))
    if last is not None:
        ended(last)


def _run(fleet: FleetClient, vm_id: str, order: dict[str, object], stdin: bytes) -> int:
    said: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    for part in fleet.execute(vm_id, order, stdin=stdin):
        if part.exit_code is not None:
            if invocation().json:
                texts = {stream: data.decode("utf-8", "replace") for stream, data in said.items()}
                output().document({"vm": vm_id, "exit_code": part.exit_code, **texts})
            return part.exit_code
        if invocation().json:
            said[part.stream] += part.data
        else:
            _print(part.data, to_stderr=part.stream == "stderr")
    raise Failed("the command's end was not told", code="exec_cut_off")


def _print(data: bytes, *, to_stderr: bool = False) -> None:
    """Pass bytes on as they are in a pipe; on a terminal nothing in them steers it."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        stream.write(harmless_block(data.decode("utf-8", "replace")))
    else:
        stream.flush()
        stream.buffer.write(data)
    stream.flush()


@command("logs", example="tt logs 1b9d6bcd-bbf\ntt logs -f 1b9d6bcd-bbf")
@click.argument("vm_id", metavar="VM")
@click.option("-f", "--follow", is_flag=True, help="Go on as long as the machine runs.")
def logs(*, vm_id: str, follow: bool) -> None:
    """Print what a machine printed on its console."""
    with controller() as fleet:
        parts = fleet.logs(vm_id, follow=follow)
        if invocation().json and not follow:
            text = b"".join(parts).decode("utf-8", "replace")
            output().document({"vm": vm_id, "text": text})
            return
        for part in parts:
            if invocation().json:
                output().record({"text": part.decode("utf-8", "replace")})
            else:
                _print(part)


@command("ssh", example="tt ssh 1b9d6bcd-bbf\ntt ssh 1b9d6bcd-bbf -l alpine -- uptime")
@click.argument("vm_id", metavar="VM")
@click.argument("argv", nargs=-1, metavar="[-- CMD …]")
@click.option("-l", "--login", default="root", show_default=True, metavar="NAME", help="The user inside.")
@click.option("--identity", metavar="FILE", type=click.Path(exists=True), help="The private key.")
def ssh(*, vm_id: str, argv: tuple[str, ...], login: str, identity: str | None) -> None:
    """Log into a machine with ssh, through its published port 22."""
    with controller() as fleet:
        found = fleet.get(f"/api/vms/{segment(vm_id)}")
        host = fleet.machine_at(fleet.get(f"/api/hosts/{segment(found['host_id'])}")["addr"])
    port = found["port_map"].get(_SSH_PORT)
    if port is None:
        raise NotFound(
            f"{vm_id} publishes no port 22",
            code="no_ssh_port",
            reason=f"it is {found['state']}",
            resolution="use 'tt exec' instead",
        )
    program = shutil.which("ssh")
    if program is None:
        raise Failed("ssh is not here", reason="no such program in PATH", resolution="install openssh-client")
    line = ssh_argv(program, host=host, port=port, vm_id=vm_id, login=login, identity=identity, argv=argv)
    if invocation().json:
        output().document({"argv": line})
        return
    sys.stdout.flush()
    os.execv(program, line)  # noqa: S606 - an argument list, no shell


def ssh_argv(
    program: str, *, host: str, port: int, vm_id: str, login: str, identity: str | None, argv: tuple[str, ...]
) -> list[str]:
    """Return the command line that logs into a machine.

    A machine's key is remembered under the machine's id: ports are lent again to others.
    """
    known = ["-o", f"HostKeyAlias=vm-{vm_id}", "-o", "StrictHostKeyChecking=accept-new"]
    key = ["-i", identity] if identity else []
    return [program, "-p", str(port), "-l", login, *known, *key, "--", host, *argv]
