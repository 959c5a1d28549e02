"""``agentd``: governs agents until it is told to end."""

import sys
from pathlib import Path
from typing import Final

import click

from borough.cli.errors import run

_HELP: Final = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP, epilog="Example: AGENTD_API_ADDR=127.0.0.1:9090 agentd")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The operators' socket; that of the agents is beside it.  [default: SCARAB_SOCKET]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings.  [default: AGENTD_CONFIG, else agentd.toml in the folder for settings, if it is there]",
)
@click.version_option(package_name="borough", prog_name="agentd")
def program(*, socket: Path | None, config: Path | None) -> int:
    """Govern agents: serve the gateway and the sockets.

    The environment says the rest: AGENTD_API_ADDR, AGENTD_API_CORS_ORIGINS, AGENTD_API_TOKEN_DB, AGENTD_DATA_DIR,
    SCARAB_SOCKET, AGENTD_API_AUTHZ, AGENTD_LOG, SCARAB_DEFAULT_MODEL, OPENROUTER_API_KEY.
    """
    from borough.daemon import serve

    return serve(socket, config)


def main() -> None:
    """Run ``agentd``."""
    sys.exit(run(program, "agentd"))


if __name__ == "__main__":
    main()
