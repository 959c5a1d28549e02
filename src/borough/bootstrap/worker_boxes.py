"""Which boxes a town's workers get: settings of the town become what its launcher makes them with."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from borough.config.town import TOWN_FILE, TownSettings

if TYPE_CHECKING:
    from borough.adapters.engines.bubblewrap_workers.boxes import WorkerBoxes
    from borough.bootstrap.town_opening import TownOpening

OFF = "the town's settings switch boxes off (agent.box)"
ALONE = "townhall governs nothing; borough up starts workers in boxes"
_NAMED = ("BOROUGH_TOKEN_FILE", "TINYTOWN_TOKEN_FILE", "TINYTOWN_TOWNHALL_API_KEY_PATH")
"""Variables that name files with the server's credentials."""


def worker_boxes(opening: "TownOpening") -> "tuple[WorkerBoxes | None, str]":
    """Return what makes boxes for the workers of this machine; without, why there are none."""
    settings = opening.settings
    if settings.boxes.mode == "off":
        return None, OFF
    if settings.boxes.mode == "auto" and opening.law is None:
        return None, ALONE
    hidden = [Path(os.environ[name]) for name in _NAMED if os.environ.get(name)]
    certificate = None
    if opening.plan.tls is not None:
        hidden.append(opening.plan.tls.key_file)
        certificate = opening.plan.tls.cert_file
    if opening.law is not None:
        law = opening.law.settings
        hidden += [law.data_folder, law.socket, law.agents_socket, law.token_db]
    hidden += [] if opening.ledger is None else [opening.ledger]
    return boxes_of(settings, certificate=certificate, hidden=hidden), ""


def boxes_of(
    settings: TownSettings, *, certificate: Path | None = None, hidden: "list[Path] | None" = None
) -> "WorkerBoxes":
    """Return what makes boxes for the workers of a town; ``hidden`` are places of a server's own."""
    # Only where boxes are wanted: a town alone starts without what they need.
    from borough.adapters.engines.bubblewrap_workers.boxes import (  # noqa: PLC0415 - as said above
        Program,
        WorkerBoxes,
        WorkerBoxSettings,
    )

    def program(text: str) -> Program:
        cli = settings.cli(text or None).cli
        workdir = None if cli.workdir is None else str(settings.root / cli.workdir)
        written = text in ("", settings.default_cli) or cli == settings.agent_clis.get(cli.name)
        return Program(argv=cli.argv, trusted=written, workdir=workdir, env=cli.env)

    file = settings.root / TOWN_FILE
    keys = [path for path in (settings.store.tls_key_file,) if path is not None]
    return WorkerBoxes(
        WorkerBoxSettings(
            root=settings.root,
            state=settings.state_folder,
            home=settings.boxes.home,
            show=settings.boxes.show,
            write=settings.boxes.write,
            hidden=[*(hidden or []), *keys, *([file] if settings.holds_secret else [])],
            fixed=[] if settings.holds_secret else [file],
            certificate=certificate,
            required=settings.boxes.mode == "require",
            program=program,
        ),
        os.environ,
    )
