"""What is noted of a worker that was started on this machine, so that a later server finds it."""

import json
from dataclasses import dataclass
from typing import Self

from borough.adapters.process import ProcessRef
from borough.town.agents import Confinement

_EARLIER = Confinement(boxed=False, reason="a server of an earlier version started it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A worker that was started, as it is noted in its folder."""

    worker: ProcessRef
    around: ProcessRef | None = None
    """What made its box, which ends after it."""
    confinement: Confinement = _EARLIER

    def encoded(self) -> bytes:
        """Return what is written."""
        around = None if self.around is None else {"pid": self.around.pid, "started_ticks": self.around.started_ticks}
        known = {
            "pid": self.worker.pid,
            "started_ticks": self.worker.started_ticks,
            "box": around,
            "not_boxed_because": self.confinement.reason,
        }
        return json.dumps(known).encode()

    @classmethod
    def decoded(cls, text: bytes) -> Self:
        """Return what was written, also by a version that made no boxes."""
        known = json.loads(text)
        box, reason = known.get("box"), known.get("not_boxed_because")
        confinement = Confinement(boxed=box is not None, reason=reason) if box or reason else _EARLIER
        around = None if box is None else ProcessRef(box["pid"], box["started_ticks"])
        return cls(worker=ProcessRef(known["pid"], known["started_ticks"]), around=around, confinement=confinement)
