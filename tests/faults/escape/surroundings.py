"""What there is outside of a box, for attempts to reach: files, processes, sockets, shared things."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

IPC_CREAT, IPC_RMID = 0o1000, 0
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def surroundings(folder: Path) -> Iterator[dict[str, object]]:
    """Make them, and say what an attempt needs to know."""
    word = uuid4().hex
    (folder / "outside").mkdir()
    (folder / "outside").chmod(0o777)
    for name in ("secret", "other"):
        (folder / name).write_text(word)
        (folder / name).chmod(0o644)
    with ExitStack() as undo:
        told: dict[str, object] = {
            "word": word,
            "secret": str(folder / "secret"),
            "other": str(folder / "other"),
            "outside": str(folder / "outside"),
            "state": str(folder / "state"),
            "disk": _disk(),
            "group": next((p for p in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup") if Path(p).exists()), ""),
            "family": _family(),
            "interface": next((name for _, name in socket.if_nameindex() if name != "lo"), "lo"),
            "metadata": 8999,
            "mounts": str(Path("/proc/self/ns/mnt").readlink()),
            **_victim(undo),
            **_sockets(undo, folder),
            **_shared(undo, word),
        }
        yield told


def _victim(undo: ExitStack) -> dict[str, object]:
    word = uuid4().hex
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", word])
    undo.callback(victim.wait)
    undo.callback(victim.kill)
    return {"victim": victim.pid, "victim_word": word}


def _sockets(undo: ExitStack, folder: Path) -> dict[str, object]:
    tcp = undo.enter_context(socket.create_server(("0.0.0.0", 0)))
    tcp6 = undo.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    abstract = f"borough-{uuid4().hex}"
    hidden = undo.enter_context(socket.socket(socket.AF_UNIX))
    hidden.bind(f"\0{abstract}")
    hidden.listen()
    operators = undo.enter_context(socket.socket(socket.AF_UNIX))
    path = Path("/tmp", f"bx-{uuid4().hex}.sock")
    operators.bind(str(path))
    undo.callback(path.unlink)
    path.chmod(0o777)
    operators.listen()
    udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("0.0.0.0", 0))
    answering = threading.Thread(target=_answer, args=(udp,), daemon=True)
    answering.start()
    undo.callback(answering.join)
    undo.callback(udp.sendto, b"", ("127.0.0.1", udp.getsockname()[1]))
    return {
        "tcp": tcp.getsockname()[1], "tcp6": tcp6.getsockname()[1], "udp": udp.getsockname()[1],
        "abstract": abstract, "operators": str(path), "address": _address(),
    }  # fmt: skip


def _answer(udp: socket.socket) -> None:
    while True:
        asked, who = udp.recvfrom(512)
        if not asked:
            return
        udp.sendto(b"pong", who)


def _shared(undo: ExitStack, word: str) -> dict[str, object]:
    shm = _libc.shmget(0, 4096, IPC_CREAT | 0o666)
    sem = _libc.semget(0, 1, IPC_CREAT | 0o666)
    key = int(word[:7], 16)
    msg = _libc.msgget(key, IPC_CREAT | 0o666)
    assert min(shm, sem, msg) >= 0
    undo.callback(_libc.shmctl, shm, IPC_RMID, None)
    undo.callback(_libc.semctl, sem, 0, IPC_RMID)
    undo.callback(_libc.msgctl, msg, IPC_RMID, None)
    rt = ctypes.CDLL("librt.so.1", use_errno=True)
    name = f"/bx-{word}"
    queue = rt.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    assert queue >= 0
    undo.callback(rt.mq_unlink, name.encode())
    undo.callback(os.close, queue)
    file = Path("/dev/shm", f"bx-{word}")
    file.write_text(word)
    file.chmod(0o666)
    undo.callback(file.unlink)
    return {"shm": shm, "sem": sem, "msg": key, "mq": name, "shmfile": file.name}


def _address() -> str:
    """An address of this machine that is not of loopback, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.200", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _disk() -> str:
    return next(
        (f"/dev/{path.name}" for path in sorted(Path("/sys/block").iterdir()) if Path("/dev", path.name).exists()), ""
    )


def _family() -> int:
    """A family of sockets besides the usual ones that this kernel has."""
    for family, kind in ((38, socket.SOCK_SEQPACKET), (40, socket.SOCK_STREAM), (17, socket.SOCK_RAW)):
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        return family
    return -1
