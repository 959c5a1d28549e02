"""``tt exec -it`` at a real terminal, against running programs and a real machine."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.fleet_programs import KEY, Api, Program, free_port, host_program, program, root_folder

WITHIN_S = 30.0
ENGINE = "bubblewrap"


@dataclass
class House:
    controller: str
    vm: str
    home: Path
    controlling: Program


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("terminals")
    root_folder(folder / "host" / "images" / "tiny")
    with (
        host_program(free_port(), folder / "host", "h1") as host,
        program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl")) as controller,
    ):
        api = Api(controller.address)
        api.data("POST", "/api/hosts", {"addr": host.address}, status=201)
        vm = {"image": "tiny", "engine": ENGINE, "cpu": 1, "mem": 64, "disk": 512}
        made = api.data("POST", "/api/envs", {"id": "e1", "ssh_keys": [], "vms": [vm]}, status=201)
        yield House(controller.address, made["vms"][0]["id"], folder, controller)


class AtTerminal:
    """``tt`` with a terminal of its own."""

    def __init__(self, house: House, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.screen, self._inner = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._inner)
        env = {"HOME": str(house.home), "PATH": os.environ["PATH"], "TT_API_KEY": KEY}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "borough.cli.tt", "--server", house.controller, *words],
            stdin=self._inner, stdout=self._inner, stderr=subprocess.PIPE, env=env, cwd=house.home,
            start_new_session=True,
        )  # fmt: skip
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + WITHIN_S
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.screen], [], [], 0.1)[0]:
                self.shown += os.read(self.screen, 65_536)

    def ended(self) -> int:
        assert self.process.stderr is not None
        code = self.process.wait(WITHIN_S)
        self.said = self.process.stderr.read().decode()
        self.process.stderr.close()
        return code

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._inner) == self.before

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._inner)[3] & termios.ICANON

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.screen)
        os.close(self._inner)


@contextmanager
def at_terminal(house: House, *words: str) -> Iterator[AtTerminal]:
    made = AtTerminal(house, *words, rows=31, columns=97)
    try:
        yield made
    finally:
        made.close()


def test_a_shell_is_used_as_at_home(house: House) -> None:
    with at_terminal(house, "exec", "-it", house.vm, "--", "sh") as tt:
        tt.until(b"# ")
        assert tt.is_raw
        tt.type(b"stty size; tty\r")
        tt.until(b"31 97\r\n")
        tt.until(b"/dev/pts/")
        tt.type(b"sh -c 'echo begun; exec sleep 1000'\r")
        tt.until(b"\r\nbegun\r\n")
        tt.type(b"\x03")
        tt.until(b"^C")
        tt.type(b"echo $? is the end of it\r")
        tt.until(b"130 is the end of it\r\n")
        tt.resize(17, 53)
        tt.process.send_signal(signal.SIGWINCH)
        tt.type(b"sleep 0.2; stty size\r")
        tt.until(b"17 53\r\n")
        tt.type(b"exit 42\r")
        assert tt.ended() == 42
        assert tt.is_as_before


def test_a_command_is_run_at_a_terminal_that_nobody_types_at(house: House) -> None:
    with at_terminal(house, "exec", "-t", house.vm, "--", "sh", "-c", "stty size; exit 3") as tt:
        assert tt.ended() == 3
        tt.until(b"31 97\r\n")
        assert tt.is_as_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_gets_the_terminal_back_and_leaves_no_process(house: House, number: signal.Signals) -> None:
    seconds = str(8000 + number)
    with at_terminal(house, "exec", "-it", house.vm, "--", "sh", "-c", f"echo ready; exec sleep {seconds}") as tt:
        tt.until(b"ready")
        tt.process.send_signal(number)
        assert tt.ended() == 128 + number
        assert tt.is_as_before
    deadline = time.monotonic() + WITHIN_S
    while _is_running(house, seconds):
        assert time.monotonic() < deadline


def _is_running(house: House, word: str) -> bool:
    ran = subprocess.run(
        [sys.executable, "-m", "borough.cli.tt", "--server", house.controller, "exec", house.vm, "--", "ps"],
        env={"HOME": str(house.home), "PATH": os.environ["PATH"], "TT_API_KEY": KEY},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ps" in ran.stdout
    return word in ran.stdout


def test_without_a_terminal_it_says_so(house: House) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "borough.cli.tt", "--server", house.controller, "exec", "-it", house.vm, "--", "sh"],
        env={"HOME": str(house.home), "PATH": os.environ["PATH"], "TT_API_KEY": KEY},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "are not a terminal" in ran.stderr


def test_what_is_refused_leaves_the_terminal_as_it_was(house: House) -> None:
    for words, code, told in (
        (("exec", "-it", "no-such-vm", "--", "sh"), 5, "no-such-vm"),
        (("vm", "console", house.vm), 1, "no console to type at"),
        (("vm", "console", "no-such-vm"), 5, "no-such-vm"),
    ):
        with at_terminal(house, *words) as tt:
            assert tt.ended() == code, tt.said
            assert told in tt.said
            assert tt.is_as_before


def test_a_controller_that_dies_gives_the_terminal_back(house: House) -> None:
    folder = house.home / "other"
    with program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl")) as controller:
        host = Api(house.controller).data("GET", "/api/hosts/h1")["addr"]
        Api(controller.address).data("POST", "/api/hosts", {"addr": host}, status=201)
        vm = {"image": "tiny", "engine": ENGINE, "cpu": 1, "mem": 64, "disk": 512}
        made = Api(controller.address).data("POST", "/api/envs", {"id": "o", "ssh_keys": [], "vms": [vm]}, status=201)
        other = House(controller.address, made["vms"][0]["id"], house.home, controller)
        with at_terminal(other, "exec", "-it", other.vm, "--", "sh") as tt:
            tt.until(b"# ")
            controller.kill()
            assert tt.ended() != 0
            assert tt.is_as_before
            assert "error:" in tt.said
