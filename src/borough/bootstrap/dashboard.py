"""The dashboard beside everything else on the port: who is let in, and what is served."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from borough.adapters.credentials.operator import OperatorToken
from borough.adapters.credentials.sessions import Sessions
from borough.http.surfaces import Surface
from borough.http.web.routes import OPERATIONS
from borough.http.web.signing_in import OperatorOnly

if TYPE_CHECKING:
    from borough.auth.principals import WorkerGrant


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The dashboard of one server."""

    sessions: Sessions

    @property
    def surface(self) -> Surface:
        """The page, its files, and the way in."""
        return Surface(
            operations=OPERATIONS,
            state=self.sessions,
            authenticate=OperatorOnly(self.sessions),
            grant_is_live=_nobody_is_bound,
        )

    def address(self, url: str) -> str:
        """Return the address that lets its reader in, once and soon; it is for a terminal, never for a log."""
        code, _ = self.sessions.new_code()
        return f"{url}/#code={code}"


def open_dashboard(state_folder: Path, operator: OperatorToken) -> Dashboard:
    """Return the dashboard of the server whose folder is ``state_folder``; raises as ``Sessions``."""
    return Dashboard(Sessions(state_folder, operator))


async def _nobody_is_bound(_grant: "WorkerGrant") -> bool:
    """Tell that no worker's token means anything here."""
    return False
