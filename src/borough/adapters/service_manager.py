"""Telling whoever started this program as a service that it serves now (sd_notify(3))."""

import socket
from collections.abc import MutableMapping
from typing import Final

import structlog

log = structlog.get_logger(__name__)

NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"


def tell_ready(environ: MutableMapping[str, str]) -> bool:
    """Tell the service manager, if there is one, that the program is ready; return whether it was told.

    The variable is taken out of ``environ``: what this program starts does not speak for it.
    """
    address = environ.pop(NOTIFY_VARIABLE, "")
    if not address:
        return False
    where = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaking:
            speaking.sendto(b"READY=1", where)
    except OSError as error:  # the service manager will say that nothing came; the program serves all the same
        log.warning("service.not_told", reason=error.strerror)
        return False
    return True
