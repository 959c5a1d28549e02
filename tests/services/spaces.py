"""Network namespaces for tests: the test itself moves into one, and calls functions in others."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar
from uuid import uuid4

from borough.adapters import system_calls

Result = TypeVar("Result")
PATIENCE_S = 0.4
"""How long a call that must fail is waited for."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and the threads and processes it starts, into a network namespace of its own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        system_calls.unshare(system_calls.CLONE_NEWNET)
        ip("link", "set", "lo", "up")
        yield
    finally:
        system_calls.set_namespace(before)
        os.close(before)


@contextmanager
def outside(host_address: str, address: str) -> Iterator[str]:
    """Make a namespace that is another machine, connected to this one."""
    name = f"outside-{uuid4().hex[:8]}"
    ip("netns", "add", name)
    try:
        ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{host_address}/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


def within(space: str | None, act: Callable[[], Result]) -> Result:
    """Return what ``act`` does in the namespace of that name (``None``: here)."""
    if space is None:
        return act()
    done: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        descriptor = os.open(Path("/run/netns") / space, os.O_RDONLY | os.O_CLOEXEC)
        try:
            system_calls.set_namespace(descriptor)
            done.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


class Echo:
    """Answers what it is sent, over TCP and UDP, in a namespace; closed with it."""

    def __init__(self, space: str | None, port: int, *, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._tcp = within(space, lambda: socket.socket(family, socket.SOCK_STREAM))
        self._udp = within(space, lambda: socket.socket(family, socket.SOCK_DGRAM))
        for one in (self._tcp, self._udp):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        self._tcp.listen()
        self.peers: list[str] = []
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_tcp, self._serve_udp)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._tcp, self._udp):
            with suppress(OSError):  # it was connected to nobody
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5.0)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, peer = self._tcp.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            with connection:
                connection.settimeout(5.0)
                connection.sendall(connection.recv(64))

    def _serve_udp(self) -> None:
        while True:
            try:
                content, peer = self._udp.recvfrom(64)
            except OSError:
                return
            if not content:
                return
            self._udp.sendto(content, peer)


def tcp(space: str | None, address: str, port: int, *, family: socket.AddressFamily = socket.AF_INET) -> bool:
    """Tell whether something answers over TCP."""

    def call() -> bool:
        with socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(PATIENCE_S)
            try:
                caller.connect((address, port))
                caller.sendall(b"hello")
                return caller.recv(64) == b"hello"
            except OSError:
                return False

    return within(space, call)


def udp(space: str | None, address: str, port: int) -> bool:
    """Tell whether something answers over UDP."""

    def call() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.settimeout(PATIENCE_S)
            try:
                caller.sendto(b"hello", (address, port))
                return caller.recv(64) == b"hello"
            except OSError:
                return False

    return within(space, call)


def ping(space: str | None, address: str) -> bool:
    """Tell whether an address answers an echo request."""

    def call() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as caller:
            caller.settimeout(PATIENCE_S)
            body = b"\x08\x00\x00\x00\x42\x42\x00\x01"
            total = sum(int.from_bytes(body[place : place + 2], "big") for place in range(0, 8, 2))
            checked = (~((total & 0xFFFF) + (total >> 16))) & 0xFFFF
            try:
                caller.sendto(body[:2] + checked.to_bytes(2, "big") + body[4:], (address, 0))
                while True:
                    answer = caller.recv(256)
                    if answer[20] == 0 and answer[24:26] == b"\x42\x42":
                        return True
            except OSError:
                return False

    return within(space, call)
