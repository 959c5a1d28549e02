"""What is checked and taken before a town's server starts: settings, safety, the folder, the port, credentials."""

import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import structlog

from borough.adapters.credentials.operator import OperatorToken, operator_token, town_key
from borough.adapters.holding import hold_town
from borough.auth.tokens import SignedTokens
from borough.config.environment import container_environment, shared_ledger
from borough.config.global_file import load_settings
from borough.config.safety import StartPlan, TlsPlan, parse_bind, start_plan
from borough.config.sections import BoxMode
from borough.config.town import TownSettings
from borough.config.town_file import prepare_state_folder
from borough.core.clock import utc_now
from borough.http import binding
from borough.http.auth import OperatorVerifier

if TYPE_CHECKING:
    from borough.bootstrap.dashboard import Dashboard
    from borough.bootstrap.governed_town import Law
    from borough.config.fleet import Housing, TownFleetSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TownOpening:
    """Everything that was checked before the port was opened."""

    settings: TownSettings
    plan: StartPlan
    tls: ssl.SSLContext | None
    sockets: list[socket]
    operator: OperatorToken
    tokens: SignedTokens
    held: int
    """The descriptor that holds the town; it is closed by the end of the process."""
    law: "Law | None" = None
    """What is needed to govern too; ``None``: only the town is served."""
    fleet: "TownFleetSettings | None" = None
    """What is needed to house too, likewise."""
    dashboard: "Dashboard | None" = None
    """The page of a server that governs and houses."""
    ledger: Path | None = None
    """Where the ledger is that a town alone shares with other programs."""

    @property
    def operators(self) -> OperatorVerifier:
        """Who knows the operator: by the credential in the folder, and by the sessions of the dashboard."""
        return self.operator if self.dashboard is None else self.dashboard.sessions

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        return binding.server_url(self.sockets, tls=self.tls is not None)

    def close(self) -> None:
        """Give the sockets back."""
        for opened in self.sockets:
            opened.close()
        if self.law is not None:
            self.law.close()


def open_port(
    root: Path,
    bind: str | None,
    port: int | None,
    environ: Mapping[str, str],
    housing: "Housing | None",
    *,
    worker_box: BoxMode | None = None,
) -> TownOpening:
    """Check all that can be checked, then take the port: a server that must not start does not even bind.

    Raises:
        BoroughError: what is wrong with settings, files or port.
    """
    settings = load_settings(root, environ)
    if worker_box is not None:
        settings = replace(settings, boxes=replace(settings.boxes, mode=worker_box))
    container = container_environment(environ)
    address = parse_bind(bind or container.bind or settings.townhall.bind)
    wanted_port = next(value for value in (port, container.port, settings.townhall.rest_port) if value is not None)
    plan = start_plan(settings.townhall, bind=address, root=settings.root, at=utc_now())
    tls_warnings, tls = _tls(plan.tls)
    for warning in (*settings.warnings, *plan.warnings, *tls_warnings):
        log.warning("start.warning", told=warning)
    state = prepare_state_folder(settings.root)
    held = hold_town(state)
    with ExitStack() as undo:
        sockets = binding.bind(str(address), wanted_port)
        for bound in sockets:
            undo.callback(bound.close)
        fleet = None if housing is None else _fleet(environ, state, housing, sockets, tls=tls is not None)
        law = None if housing is None else _law(environ, state, sockets)
        operator = operator_token(state)
        dashboard = None if housing is None else _dashboard(state, operator)
        undo.pop_all()
    return TownOpening(
        settings=settings,
        plan=plan,
        tls=tls,
        sockets=sockets,
        operator=operator,
        tokens=SignedTokens(town_key(state)),
        held=held,
        law=law,
        fleet=fleet,
        dashboard=dashboard,
        ledger=shared_ledger(environ) if housing is None else None,
    )


def _law(environ: Mapping[str, str], state: Path, sockets: list[socket]) -> "Law":
    from borough.bootstrap.governed_town import open_law  # noqa: PLC0415 - a town alone starts without it

    host, port = sockets[0].getsockname()[:2]
    return open_law(environ, state, host=host, port=port)


def _fleet(
    environ: Mapping[str, str], state: Path, housing: "Housing", sockets: list[socket], *, tls: bool
) -> "TownFleetSettings":
    from borough.config.fleet import fleet_of_town  # noqa: PLC0415 - a town alone starts without it

    host, port = sockets[0].getsockname()[:2]
    return fleet_of_town(environ, state, housing, host=host, port=port, tls=tls)


def _dashboard(state: Path, operator: OperatorToken) -> "Dashboard":
    from borough.bootstrap.dashboard import open_dashboard  # noqa: PLC0415 - a town alone starts without it

    return open_dashboard(state, operator)


def _tls(plan: TlsPlan | None) -> tuple[tuple[str, ...], ssl.SSLContext | None]:
    if plan is None:
        return (), None
    from borough.adapters.tls import check_tls_files, server_context  # noqa: PLC0415 - 0.3 s that most starts save

    warnings = check_tls_files(cert_file=plan.cert_file, key_file=plan.key_file, ca_file=plan.ca_file, at=utc_now())
    context = server_context(
        cert_file=plan.cert_file,
        key_file=plan.key_file,
        ca_file=plan.ca_file,
        client_certificate_required=plan.client_certificate_required,
    )
    return warnings, context
