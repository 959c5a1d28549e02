"""Stands in for Firecracker where no guest boots: its command line, its socket, its order of things; no machine.

It notes every request in ``requests.jsonl`` beside its socket and refuses what comes at the wrong time, as Firecracker
does. Files that it was told of must be there.
"""

import argparse
import json
import os
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

BEFORE_START = ("/logger", "/machine-config", "/boot-source", "/drives/", "/network-interfaces/", "/vsock", "/entropy")


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


class Machine:
    state = "Not started"
    name = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"app_name": "Firecracker", "id": Machine.name, "state": Machine.state, "vmm_version": "1.17.0"}
        self.answer(200, told)

    def do_PUT(self) -> None:
        self.asked("PUT")

    def do_PATCH(self) -> None:
        self.asked("PATCH")

    def asked(self, method: str) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path("requests.jsonl").open("a") as file:
            file.write(json.dumps([method, self.path, body]) + "\n")
        fault = self.fault(body)
        if fault is not None:
            self.answer(400, {"fault_message": fault})
            return
        self.act(body)
        self.answer(204, None)
        if body.get("action_type") == "SendCtrlAltDel":
            say("the guest shuts down")
            os._exit(0)

    def fault(self, body: dict[str, object]) -> str | None:
        missing = [value for name, value in body.items() if name in ("kernel_image_path", "path_on_host", "log_path")
                   and not Path(str(value)).exists()]  # fmt: skip
        if missing:
            return f"no such file: {missing[0]}"
        if self.path.startswith(BEFORE_START) and Machine.state != "Not started":
            return "The requested operation is not supported after starting the microVM."
        if self.path == "/vm" and Machine.state == "Not started":
            return "The requested operation is not supported before starting the microVM."
        if self.path == "/snapshot/create" and Machine.state != "Paused":
            return "Cannot save a microVM that is not paused."
        if Path("refuse").exists() and self.path == Path("refuse").read_text():
            return "as the test wants it"
        return None

    def act(self, body: dict[str, object]) -> None:
        if body.get("action_type") == "InstanceStart":
            Machine.state = "Running"
            say("the guest boots")
        if self.path == "/vm":
            Machine.state = {"Paused": "Paused", "Resumed": "Running"}[str(body["state"])]
        if self.path == "/snapshot/create":
            Path(str(body["snapshot_path"])).write_text("state")
            Path(str(body["mem_file_path"])).write_text("memory")
        if self.path == "/snapshot/load":
            assert Path(str(body["snapshot_path"])).read_text() == "state"
            Machine.state = "Running" if body["resume_vm"] else "Paused"
            say("the guest goes on")

    def answer(self, status: int, told: object) -> None:
        content = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        return


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A caller that left is no error."""
        if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)  # type: ignore[arg-type]  # passed on


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--no-api", action="store_true")
    parser.add_argument("--config-file")
    parser.add_argument("--id")
    parser.add_argument("--api-sock")
    told = parser.parse_args()
    if told.version:
        say("Firecracker v1.17.0")
        return
    if told.no_api:
        config = json.loads(Path(told.config_file).read_text())
        assert Path(config["boot-source"]["kernel_image_path"]).read_bytes().startswith(b"\x7fELF")
        if Path(sys.argv[0]).with_name("hangs").exists():
            threading.Event().wait()
        return
    Machine.name = told.id
    with Server(told.api_sock, Handler) as server:
        server.serve_forever()


main()
