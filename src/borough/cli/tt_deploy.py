"""``tt deploy``: controller and host daemons as services of this machine or of others, over SSH."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final
from uuid import uuid4

import click

from borough.adapters import process
from borough.cli import deploying
from borough.cli.commands import LazyGroup, command
from borough.cli.deploying import Deployment, Service, Target
from borough.cli.errors import Failed
from borough.cli.output import output, say
from borough.config.files import write_whole
from borough.config.reading import read_toml

_HERE: Final = "borough.cli.tt_deploy"
_WITHIN_S: Final = 600.0
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
def dist(*, file: Path, dry_run: bool) -> None:
    """Put controller and host daemons on other machines, over SSH.

    A host's key is remembered when it is first seen; another one is refused from then on. The fleet's key is the one in
    the file, else the one in FILE.api-key, which is made where there is none.
    """
    made = deploying.deployment(read_toml(file))
    if dry_run:
        scripts = [_dry(service, made) for service in made.services]
        output().show({"scripts": scripts}, lambda: output().block("\n".join(one["script"] for one in scripts)))
        return
    key = made.api_key or _kept_key(file.with_name(f"{file.name}.api-key"))
    wheel = _wheel(Path(made.release_dir))
    for service in made.services:
        if service.target is not None:
            _remote(service, service.target, made, key, wheel)
    _done(made.services)


def _dry(service: Service, made: Deployment) -> dict[str, str]:
    text = deploying.script(service, made, api_key="KEY-OF-THE-FLEET", wheel="borough.whl")
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
        _run(["sh", "-s"], deploying.script(service, made, api_key=key, wheel=str(wheel)), what=service.name)
    _done(services)


def local_lacks(*, is_root: bool, has_systemd: bool) -> str | None:
    """Return what a machine lacks to be deployed to by its own ``tt``, in words."""
    needs = [*([] if is_root else ["root's rights"]), *([] if has_systemd else ["systemd as its first process"])]
    return f"it needs {' and '.join(needs)}" if needs else None


def _remote(service: Service, target: Target, made: Deployment, key: str, wheel: Path) -> None:
    say(f"[deploy] {service.name} on {target.host}")
    there = f"/tmp/{uuid4().hex}-{wheel.name}"  # noqa: S108 - a name that nobody can know before
    _run(deploying.scp_argv(target, str(wheel), there), "", what=f"the copy to {target.host}")
    text = deploying.script(service, made, api_key=key, wheel=there)
    _run(deploying.ssh_argv(target), f"trap 'rm -f {there}' EXIT\n{text}", what=f"{service.name} on {target.host}")


def _run(argv: list[str], text: str, *, what: str) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK", "LANG") if name in os.environ}
    done = process.run(argv, env=kept, timeout_s=_WITHIN_S, stdin=text.encode())
    if done.code != 0:
        raise Failed(
            f"{what} was not deployed", code="deploy_failed", reason=done.words, resolution="mend it, and repeat"
        )


def _wheel(folder: Path) -> Path:
    found = sorted(folder.glob("borough-*.whl"))
    if not found:
        raise Failed(
            f"there is no wheel of borough in {folder}",
            code="no_release",
            reason="it is what is put on the machines",
            resolution="in a checkout of the sources: uv build --wheel; or name its folder with --release-dir",
        )
    return found[-1]


def _kept_key(path: Path) -> str:
    """Return the key that was made before, or make one that only this user can read."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").strip()
    key = secrets.token_urlsafe(32)
    write_whole(path, f"{key}\n", mode=0o600)
    say(f"[deploy] the fleet's key is in {path}")
    return key


def _done(services: tuple[Service, ...]) -> None:
    controllers = [service for service in services if service.name == "tt-ctl"]
    shown = [{"service": each.name, "host": each.target.host if each.target else "localhost"} for each in services]
    output().show({"deployed": shown}, lambda: None)
    for each in controllers:
        port = each.arguments[1].rpartition(":")[2]
        host = each.target.host if each.target else "127.0.0.1"
        say(f"[deploy] now: tt config {host}:{port}, with the key in TT_API_KEY; then tt host add HOST:9100")
