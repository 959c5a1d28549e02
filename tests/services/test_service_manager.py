import os
import socket
from pathlib import Path

from borough.adapters.service_manager import tell_ready


def test_a_service_manager_is_told_once_at_a_path_or_an_abstract_name(tmp_path: Path) -> None:
    abstract = f"borough-{os.getpid()}"
    for address, bound in ((str(tmp_path / "notify"), str(tmp_path / "notify")), (f"@{abstract}", f"\0{abstract}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(bound)
            told.settimeout(10)
            environ = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
            assert tell_ready(environ)
            assert told.recv(100) == b"READY=1"
            assert environ == {"PATH": "/bin"}
            assert not tell_ready(environ)


def test_a_service_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    assert not tell_ready({"NOTIFY_SOCKET": str(tmp_path / "absent")})
