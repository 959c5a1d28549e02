"""The daemon's side of the nursery: started when it is needed, asked for wardens, let go with the daemon."""

import json
import os
import socket
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import borough
from borough.adapters import process
from borough.adapters.engines.bubblewrap_machines.grouping import Ahead
from borough.adapters.engines.bubblewrap_machines.nursery import UNBORN
from borough.adapters.engines.bubblewrap_machines.plans import owner_of
from borough.adapters.engines.bubblewrap_machines.state import MachineState
from borough.adapters.process import OWNER

_BEGIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from borough.adapters.engines.bubblewrap_machines.nursery import main; main()"
)
_STARTS_WITHIN_S = 30.0
_LOG = "warden.log"
_NOBODY = "00000000-000"


class Launcher:
    """Starts wardens. It may be used from many threads at once."""

    def __init__(self, *, marker: str, log: Path, ahead: Ahead) -> None:
        """``log``: where the nursery complains; ``ahead``: what is made before there is an order."""
        self._marker = marker
        self._ahead = ahead
        ahead.remove_left()
        self._log = log
        self._orders: socket.socket | None = None
        self._lock = Lock()

    def launch(self, state: MachineState, told: Mapping[str, object]) -> Mapping[str, object]:
        """Start a machine's warden and return what it says once the machine stands, or cannot (``error``).

        It says nothing where it was ended before that, as with the nursery from which it came.

        Raises:
            OSError: there is no nursery.
        """
        how = os.memfd_create("borough", os.MFD_CLOEXEC)
        said_r, said_w = os.pipe()
        log = _append_to(state.folder / _LOG)
        try:
            os.write(how, json.dumps(told).encode())
            os.lseek(how, 0, os.SEEK_SET)
            self._ask({"folder": str(state.folder), "owner": owner_of(self._marker, state.vm_id)}, [how, said_w, log])
        except OSError:
            os.close(said_r)
            raise
        finally:
            for descriptor in (how, said_w, log):
                os.close(descriptor)
        with os.fdopen(said_r, "rb") as said:
            line = said.readline()
        answer: Mapping[str, object] = json.loads(line) if line else {}
        return answer

    def _ask(self, order: Mapping[str, str], descriptors: list[int]) -> None:
        content = json.dumps(order).encode()
        with self._lock:
            if self._orders is not None:
                try:
                    socket.send_fds(self._orders, [content], descriptors)
                except OSError:  # it was killed; another one does as well
                    self._orders.close()
                else:
                    return
            self._orders = self._started()
            socket.send_fds(self._orders, [content], descriptors)

    def _started(self) -> socket.socket:
        Path(self._ahead.staging).mkdir(mode=0o711, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = _append_to(self._log)
        try:
            root = str(Path(borough.__file__).parents[1])
            argv = [sys.executable, "-I", "-S", "-c", _BEGIN, root, self._ahead.told()]
            unborn = owner_of(self._marker, _NOBODY, first=UNBORN)
            child = process.start(argv, env={OWNER: unborn}, cwd=Path("/"), stdin=theirs.fileno(), stderr=log)
            child.wait(_STARTS_WITHIN_S)  # what we started has left the nursery to the system
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(log)
            theirs.close()
        weakref.finalize(self, ours.close)
        return ours


def _append_to(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
