"""``tt-agent``: the daemon of one host."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from borough.cli.errors import run

_HELP: Final = {"help_option_names": ["-h", "--help"]}
_COUNT: Final = click.IntRange(min=0)


@click.command(context_settings=_HELP, epilog="Example: TT_API_KEY=… tt-agent --listen 0.0.0.0:9100 --host-id rack1")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:9100", show_default=True, help="Where to listen.")
@click.option(
    "--image-dir", metavar="DIR", help="Base images.  [default: /home/ttstack/images, or in your state folder]"
)
@click.option(
    "--runtime-dir", metavar="DIR", help="Machines' disks.  [default: /home/ttstack/runtime, or in your state folder]"
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where agent.db is.  [default: /home/ttstack/data, or in your state folder]",
)
@click.option("--storage", default="file", show_default=True, help="file (also: raw) or zvol (also: zfs).")
@click.option("--cpu-total", type=_COUNT, default=0, help="Processors to promise.  [default: all]")
@click.option("--mem-total", type=_COUNT, default=0, help="Memory to promise, MiB.  [default: all]")
@click.option("--disk-total", type=_COUNT, default=204_800, show_default=True, help="Disk to promise, MiB.")
@click.option("--host-id", metavar="ID", help="What the host is called.  [default: the one it had, else a fresh one]")
@click.option("--api-key", metavar="KEY", help="Who may call; better in TT_API_KEY, where other users cannot see it.")
@click.option("--insecure", is_flag=True, help="Listen without a key where others can connect.")
@click.option("--join-only", is_flag=True, help="Let in only controllers that joined with the token in join.token.")
@click.option(
    "--tls/--no-tls", default=None, help="Serve HTTPS.  [default: with --join-only, where others can connect]"
)
@click.option("--invite", is_flag=True, help="Print the command that adds this host to a fleet, good once, and end.")
@click.option("--reference-strict", is_flag=True, help="Answer with nothing that the reference does not have.")
@click.option("--max-vms", type=click.IntRange(min=1), default=1000, show_default=True, help="How many machines.")
@click.option(
    "--port-start", type=click.IntRange(1, 65_535), default=20_000, show_default=True, help="First port lent."
)
@click.option("--port-end", type=click.IntRange(1, 65_535), default=65_535, show_default=True, help="Last port lent.")
@click.option("--bridge", default="tt0", show_default=True, help="The machines' bridge.")
@click.option("--user-network", is_flag=True, help="Do not touch the host's network.")
@click.option(
    "--server", metavar="HOST:PORT", help="What machines reach as http://borough.internal, where their list has it."
)
@click.option("--host-image", is_flag=True, help="Offer the image host: machines of this host's own programs.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.version_option(package_name="borough", prog_name="tt-agent")
def program(
    *,
    listen: str,
    image_dir: str | None,
    runtime_dir: str | None,
    data_dir: Path | None,
    storage: str,
    cpu_total: int,
    mem_total: int,
    disk_total: int,
    host_id: str | None,
    api_key: str | None,
    insecure: bool,
    join_only: bool,
    tls: bool | None,
    invite: bool,
    reference_strict: bool,
    max_vms: int,
    port_start: int,
    port_end: int,
    bridge: str,
    user_network: bool,
    server: str | None,
    host_image: bool,
    verbose: bool,
) -> int:
    """Serve this machine to a fleet: make machines on it, and keep them."""
    from borough.config.fleet import host_settings
    from borough.hostd import serve

    settings = host_settings(
        os.environ,
        listen=listen,
        image_dir=image_dir,
        runtime_dir=runtime_dir,
        data_dir=data_dir,
        storage=storage,
        cpu_total=cpu_total,
        mem_total=mem_total,
        disk_total=disk_total,
        host_id=host_id,
        api_key=api_key,
        insecure=insecure,
        join_only=join_only,
        tls=tls,
        strict=reference_strict,
        max_vms=max_vms,
        ports=(port_start, port_end),
        bridge=bridge,
        change_network=not user_network,
        server=server,
        host_image=host_image,
        verbose=verbose,
    )
    if invite:
        return _invite(settings.data_dir)
    return serve(settings)


def _invite(folder: Path) -> int:
    from borough.adapters.host.door import invitation

    address, token = invitation(folder.absolute())
    # In the environment: other users can see the arguments of a command.
    click.echo(f"TT_JOIN_TOKEN={token.text} tt host add {address}")
    click.echo(f"good once, until {token.expires_at:%Y-%m-%d %H:%M} UTC, where the controller is", err=True)
    return 0


def main() -> None:
    """Run ``tt-agent``."""
    sys.exit(run(program, "tt-agent"))


if __name__ == "__main__":
    main()
