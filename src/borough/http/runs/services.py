"""What the handlers of runs may call."""

from dataclasses import dataclass

from borough.governance.services.audit import AuditService
from borough.runs.services.kills import KillService
from borough.runs.services.runs import RunService


@dataclass(frozen=True, slots=True, kw_only=True)
class RunServices:
    """One server's services of runs: the ``state`` of every ``Call``."""

    runs: RunService
    kills: KillService
    audit: AuditService
