"""What a box's process tries to get out; prints how each attempt went. Run inside of a box, by its path."""

import errno
import json
import socket
import ssl
import sys
from collections.abc import Callable

PROXY = ("127.0.0.1", 3128)
WAIT_S = 5.0


def page(endpoint: str) -> str:
    with socket.create_connection(PROXY, WAIT_S) as s:
        s.sendall(f"GET http://{endpoint}/ HTTP/1.1\r\nHost: {endpoint}\r\n\r\n".encode())
        return s.recv(4096).split()[1].decode()


def tunnel(endpoint: str) -> tuple[socket.socket, str]:
    s = socket.create_connection(PROXY, WAIT_S)
    s.sendall(f"CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = s.recv(1)
        if not piece:
            break
        head += piece
    return s, head.split()[1].decode()


def secured(endpoint: str, name: str) -> str:
    s, status = tunnel(endpoint)
    if status != "200":
        return status
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(s, server_hostname=name):
            return "secured"
    except (ssl.SSLError, OSError):
        return "closed"


def direct(kind: int, address: tuple[str, int]) -> str:
    try:
        with socket.socket(socket.AF_INET, kind) as s:
            s.settimeout(WAIT_S)
            s.connect(address)
            s.send(b"x")
    except OSError as error:
        named = {errno.ECONNREFUSED: "refused", errno.ENETUNREACH: "unreachable"}
        return named.get(error.errno or 0, str(error))
    return "reached"


def look_up() -> str:
    try:
        return str(socket.getaddrinfo("good.example", 80))
    except OSError:
        return "no answer"


def main() -> None:
    given = json.loads(sys.argv[1])
    plain, secure = given["plain"], given["secure"]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    attempts: dict[str, Callable[[], str]] = {
        "allowed GET": lambda: page(f"good.example:{plain}"),
        "allowed CONNECT": lambda: secured(f"good.example:{secure}", "good.example"),
        "another host": lambda: page(f"other.example:{plain}"),
        "another port": lambda: tunnel("good.example:22")[1],
        "a private address": lambda: page(f"private.example:{plain}"),
        "a name that turns": lambda: f"{page(f'rebind.example:{plain}')} {page(f'rebind.example:{plain}')}",
        "another name in TLS": lambda: secured(f"good.example:{secure}", "other.example"),
        "direct TCP to a server of this machine": lambda: direct(socket.SOCK_STREAM, ("127.0.0.2", plain)),
        "direct TCP to elsewhere": lambda: direct(socket.SOCK_STREAM, ("1.1.1.1", 80)),
        "direct UDP": lambda: direct(socket.SOCK_DGRAM, ("1.1.1.1", 53)),
        "DNS": look_up,
    }
    sys.stdout.write(json.dumps({name: attempt() for name, attempt in attempts.items()}))


if __name__ == "__main__":
    main()
