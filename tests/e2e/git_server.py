"""Git remotes on loopback: one that speaks git's own protocol, as real ones do, and one that only hands out files."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import need


def git(folder: Path, *words: str) -> str:
    who = {f"GIT_{each}_{what}": "nobody@example.org" for each in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *words], cwd=folder, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def made_repository(folder: Path) -> dict[str, str]:
    """Make ``folder/code.git`` with two commits on its branch and one on another; return the commits by name."""
    need(shutil.which("git"), "git", "apt-get install git")
    work = folder / "work"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main", ".")
    commits: dict[str, str] = {}
    for name, branch in (("first", "main"), ("second", "main"), ("other", "topic")):
        if branch != "main":
            git(work, "checkout", "-q", "-b", branch)
        (work / "greeting").write_text(f"{name}\n")
        git(work, "add", "greeting")
        git(work, "commit", "-q", "-m", name)
        commits[name] = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "-q", "main")
    git(folder, "clone", "-q", "--bare", str(work), "code.git")
    git(folder / "code.git", "update-server-info")
    return commits


@contextmanager
def serving(folder: Path, *, smart: bool) -> Iterator[int]:
    """Serve what is in ``folder`` on a port of loopback; ``smart``: by ``git http-backend``."""
    handler = partial(_Backend if smart else _Files, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


class _Backend(BaseHTTPRequestHandler):
    def __init__(self, *arguments: object, directory: str) -> None:
        self._root = directory
        super().__init__(*arguments)  # type: ignore[arg-type]  # as the server has it

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        environ = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": self._root, "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path, "QUERY_STRING": parts.query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], env=environ, input=body, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return
