"""``tt-ctl``: the fleet's controller."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from borough.cli.errors import run

_HELP: Final = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP, epilog="Example: TT_API_KEY=… tt-ctl --listen 0.0.0.0:9200")
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:9200", show_default=True, help="Where to listen.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where ctl.db is.  [default: /home/ttstack/ctl, or in your state folder]",
)
@click.option("--api-key", metavar="KEY", help="Who may call; better in TT_API_KEY, where other users cannot see it.")
@click.option("--insecure", is_flag=True, help="Listen without a key where others can connect.")
@click.option("--reference-strict", is_flag=True, help="Answer with nothing that the reference does not have.")
@click.option("--max-hosts", type=click.IntRange(min=1), default=50, show_default=True, help="How many hosts.")
@click.option("--max-vms", type=click.IntRange(min=1), default=1000, show_default=True, help="How many machines.")
@click.option("--max-lifetime", type=click.IntRange(min=1), metavar="SEC", help="Of an environment.  [default: 21600]")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.version_option(package_name="borough", prog_name="tt-ctl")
def program(
    *,
    listen: str,
    data_dir: Path | None,
    api_key: str | None,
    insecure: bool,
    reference_strict: bool,
    max_hosts: int,
    max_vms: int,
    max_lifetime: int | None,
    verbose: bool,
) -> int:
    """Serve the fleet: place environments on hosts, and keep them."""
    from borough.config.fleet import controller_settings
    from borough.fleetd import serve

    settings = controller_settings(
        os.environ,
        listen=listen,
        data_dir=data_dir,
        api_key=api_key,
        insecure=insecure,
        strict=reference_strict,
        max_hosts=max_hosts,
        max_vms=max_vms,
        max_lifetime_s=max_lifetime,
        verbose=verbose,
    )
    return serve(settings)


def main() -> None:
    """Run ``tt-ctl``."""
    sys.exit(run(program, "tt-ctl"))


if __name__ == "__main__":
    main()
