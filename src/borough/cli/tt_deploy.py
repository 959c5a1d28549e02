"""``tt deploy``: controller and host daemons as services of this machine or of others, over SSH."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

import click

from borough.adapters import process
from borough.cli import deploy_scripts, deploying
from borough.cli.commands import LazyGroup, command
from borough.cli.deploy_scripts import Wheel
from borough.cli.deploying import Deployment, Service
from borough.cli.errors import Failed
from borough.cli.output import output, say
from borough.config.files import write_whole
from borough.config.reading import read_toml

_HERE: Final = "borough.cli.tt_deploy"
_WITHIN_S: Final = 600.0
_SSH_FAILED: Final = 255
_NOT_KNOWN: Final = b"Host key verification failed"
_LOCAL_KEY: Final = Path("/opt/ttstack/etc/api-key")
_RELEASE = click.option("--release-dir", default="dist", show_default=True, metavar="DIR", help="Where the wheel is.")

deploy = LazyGroup(
    "deploy",
    help="Run controller and host daemons as services: agent, ctl, all, dist.",
    example="tt deploy all --release-dir dist\ntt deploy dist deploy.toml",
    table={
        "agent": (f"{_HERE}:agent", "Run the host daemon as a service of this machine."),
        "ctl": (f"{_HERE}:ctl", "Run the controller as a service of this machine."),
        "all": (f"{_HERE}:everything", "Run controller and host daemon as services of this machine."),
        "dist": (f"{_HERE}:dist", "Put controller and host daemons on other machines, over SSH."),
    },
)


@command("agent", example="tt deploy agent --release-dir dist")
@_RELEASE
def agent(*, release_dir: str) -> None:
    """Run the host daemon as a service of this machine; needs root and systemd."""
    _local((deploying.agent_service(),), release_dir)


@command("ctl", example="tt deploy ctl --release-dir dist")
@_RELEASE
def ctl(*, release_dir: str) -> None:
    """Run the controller as a service of this machine; needs root and systemd."""
    _local((deploying.controller_service(),), release_dir)


@command("all", example="tt deploy all --release-dir dist")
@_RELEASE
def everything(*, release_dir: str) -> None:
    """Run controller and host daemon as services of this machine; needs root and systemd."""
    _local((deploying.controller_service(), deploying.agent_service()), release_dir)


@command("dist", example="tt deploy dist deploy.toml\ntt deploy dist --dry-run")
@click.argument("file", default="deploy.toml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Only print what would be run, without the key.")
@click.option("--no-start", is_flag=True, help="Put everything there, and start nothing; systemd is not needed then.")
@click.option("--known-hosts-only", is_flag=True, help="Accept no machine whose SSH key is not known already.")
@click.option(
    "--ssh-config", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="In place of ~/.ssh/config."
)
def dist(*, file: Path, dry_run: bool, no_start: bool, known_hosts_only: bool, ssh_config: str | None) -> None:
    """Put controller and host daemons on other machines, over SSH.

    A machine's SSH key is remembered when it is first seen; another one is refused from then on. The fleet's key is the
    one in the file, else the one in FILE.api-key, which is made where there is none.
    """
    made = deploying.deployment(read_toml(file))
    if dry_run:
        scripts = [_dry(service, made, start=not no_start) for service in made.services]
        output().show({"scripts": scripts}, lambda: output().block("\n".join(one["script"] for one in scripts)))
        return
    wheels = {service: _wheel(Path(service.release_dir or made.release_dir)) for service in made.services}
    key = made.api_key or _kept_key(file.with_name(f"{file.name}.api-key"))
    for service, wheel in wheels.items():
        if service.target is not None:
            say(f"[deploy] {service.name} on {service.target.host}")
            text = deploy_scripts.script(service, made, api_key=key, wheel=wheel, start=not no_start)
            argv = deploy_scripts.ssh_argv(service.target, config=ssh_config, known_only=known_hosts_only)
            _run(argv, text, what=f"{service.name} on {service.target.host}", key=key)
    _done(made, started=not no_start)


def _dry(service: Service, made: Deployment, *, start: bool) -> dict[str, str]:
    wheel = Wheel(name="borough.whl", sha256="0" * 64, text="(the wheel, in base64)")
    text = deploy_scripts.script(service, made, api_key="KEY-OF-THE-FLEET", wheel=wheel, start=start)
    return {"service": service.name, "host": service.target.host if service.target else "", "script": text}


def _local(services: tuple[Service, ...], release_dir: str) -> None:
    lacking = local_lacks(is_root=os.geteuid() == 0, has_systemd=Path("/run/systemd/system").is_dir())
    if lacking:
        raise Failed(
            "this machine cannot be deployed to",
            code="not_deployable",
            reason=lacking,
            resolution="run 'tt-ctl' and 'tt-agent' themselves, or use 'tt deploy dist' for machines that can",
        )
    wheel = _wheel(Path(release_dir))
    made = Deployment(services=services)
    _LOCAL_KEY.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _kept_key(_LOCAL_KEY)
    for service in services:
        say(f"[deploy] {service.name} on this machine")
        text = deploy_scripts.script(service, made, api_key=key, wheel=wheel)
        _run(["sh", "-s"], text, what=service.name, key=key)
    _done(made, started=True)


def local_lacks(*, is_root: bool, has_systemd: bool) -> str | None:
    """Return what a machine lacks to be deployed to by its own ``tt``, in words."""
    needs = [*([] if is_root else ["root's rights"]), *([] if has_systemd else ["systemd as its first process"])]
    return f"it needs {' and '.join(needs)}" if needs else None


def _run(argv: list[str], text: str, *, what: str, key: str) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK", "LANG") if name in os.environ}
    done = process.run(argv, env=kept, timeout_s=_WITHIN_S, stdin=text.encode())
    if done.code == 0:
        return
    words = done.words.replace(key, "****")
    if argv[0] == "ssh" and done.code == _SSH_FAILED and _NOT_KNOWN in done.stderr:
        raise Failed(
            f"{what} was not deployed: the machine's SSH key is not the one that is known",
            code="host_key_refused",
            reason=words,
            resolution="ask whoever runs it for its key; if that was changed on purpose: ssh-keygen -R HOST",
        )
    raise Failed(f"{what} was not deployed", code="deploy_failed", reason=words, resolution="mend it, and repeat")


def _wheel(folder: Path) -> Wheel:
    found = sorted(folder.glob("borough-*.whl"))
    if not found:
        raise Failed(
            f"there is no wheel of borough in {folder}",
            code="no_release",
            reason="it is what is put on the machines",
            resolution="in a checkout of the sources: uv build --wheel; or name its folder with --release-dir",
        )
    return deploy_scripts.wheel_of(found[-1].name, found[-1].read_bytes())


def _kept_key(path: Path) -> str:
    """Return the key that was made before, or make one that only this user can read."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").strip()
    key = secrets.token_urlsafe(32)
    write_whole(path, f"{key}\n", mode=0o600)
    say(f"[deploy] the fleet's key is in {path}")
    return key


def _done(made: Deployment, *, started: bool) -> None:
    where = {service: service.target.host if service.target else "localhost" for service in made.services}
    shown = [{"service": service.name, "host": host} for service, host in where.items()]
    output().show({"deployed": shown, "started": started}, lambda: None)
    if not started:
        say(f"[deploy] nothing was started; the units are in {made.prefix}/etc")
        return
    for service, host in where.items():
        port = service.arguments[1].rpartition(":")[2]
        if service.name == "tt-ctl":
            say(f"[deploy] now: tt config {host}:{port}, with the key in TT_API_KEY")
        elif service.has_key:
            say(f"[deploy] then: tt host add {host}:{port}")
        else:
            say(f"[deploy] then what this prints on {host}: {deploy_scripts.invite_text(service, made.prefix)}")
