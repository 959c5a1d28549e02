"""``tt`` against a running fleet, as a person or a script uses it."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet_programs import KEY, free_port, host_program, program, root_folder


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Tt:
    home: Path
    controller: str
    host: str

    def __call__(self, *words: str, stdin: str = "", key: str | None = None, code: int = 0) -> Ran:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("TT_", "TINYTOWN", "TOWNHALL"))
        }
        env = {**kept, "HOME": str(self.home), "USER": "alice", **({"TT_API_KEY": key} if key else {})}
        done = subprocess.run(
            [sys.executable, "-m", "borough.cli.tt", *words],
            env=env, cwd=self.home, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def tt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tt]:
    folder = tmp_path_factory.mktemp("fleet")
    root_folder(folder / "host" / "images" / "tiny")
    home = folder / "home"
    home.mkdir()
    with (
        program("borough.cli.tt_ctl", free_port(), folder, "--data-dir", str(folder / "ctl")) as controller,
        host_program(free_port(), folder / "host", "h1") as host,
    ):
        yield Tt(home, controller.address, host.address)


def test_from_the_address_to_the_end(tt: Tt) -> None:
    assert "tt config HOST:PORT" in tt("env", "list", code=3).err
    assert tt("config", tt.controller, "-k", KEY).out.splitlines()[0] == f"the fleet's controller is {tt.controller}"
    saved = tt.home / ".ttconfig"
    assert saved.read_text() == f"{tt.controller}\n{KEY}\n"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert tt("host", "add", tt.host).out.startswith(f"added host h1 ({tt.host})\n")
    assert tt("host", "list").out.split("\t")[:4] == ["h1", tt.host, "online", "0/8"]
    assert "Hosts\t1/1 online" in tt("status").out
    assert tt("image", "list").out == "tiny\th1\n"

    asked = ("--engine", "bwrap", "--cpu", "1", "--mem", "64", "--disk", "100", "-p", "8080", "--dup", "2")
    assert (
        tt("env", "create", "web", "-i", "tiny", *asked, "--dry-run", "--json").document["placed"][0]["host_id"] == "h1"
    )
    made = tt("env", "create", "web", "-i", "tiny", *asked)
    assert made.out.splitlines()[:2] == ["created environment web", "VMs: 2"]
    assert tt("env", "list").out.split("\t")[:4] == ["web", "alice", "active", "2"]
    vm = tt("vm", "list", "--env", "web", "--json").document["vms"][0]["id"]
    assert "->22, " in tt("env", "show", "web").out

    ran = tt("exec", vm, "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (ran.out, ran.err) == ("out\n", "err\n")
    assert tt("exec", "-i", vm, "--", "cat", stdin="given").out == "given"
    _copies(tt, vm)
    port = tt("vm", "show", vm, "--json").document["port_map"]["22"]
    assert ["-p", str(port)] == tt("ssh", "--json", vm).document["argv"][1:3]

    _clones(tt, vm)
    assert tt("vm", "pause", vm).out == f"{vm} is paused\n"
    assert tt("vm", "start", vm).out == f"{vm} is running\n"
    assert tt("env", "stop", "web").out == "stopped environment web\n"
    assert tt("exec", vm, "--", "true", code=1).err.startswith("error: ")
    assert tt("env", "start", "web").out == "started environment web\n"
    assert tt("env", "extend", "web", "--lifetime", "600").out.startswith("environment web expires ")
    assert tt("host", "remove", "h1", code=1).err.startswith("error: ")
    assert tt("host", "cordon", "h1").out == "host h1 takes nothing new\n"
    assert "cordoned" in tt("env", "create", "more", "-i", "tiny", "--engine", "bwrap", code=1).err
    tt("host", "uncordon", "h1")
    late = tt("host", "drain", "h1", "--timeout", "1", "--wait", code=1).err
    assert "of web is running" in late
    assert "the time is over" in late
    assert tt("host", "drain", "h1", "--machines", "stop", "--wait").out == "host h1 is drained\n"
    tt("host", "uncordon", "h1")
    assert tt("env", "delete", "web").out == "deleted environment web\n"
    assert tt("env", "show", "web", code=5).err.startswith("error: there is no environment 'web'")
    assert tt("host", "remove", "h1").out == "removed host h1\n"


def _clones(tt: Tt, vm: str) -> None:
    assert tt("env", "snapshot", "web", "good").out == "kept good of 2 machines of web\n"
    assert tt("vm", "snapshots", vm).out.split("\t")[0] == "good"
    assert tt("env", "clone", "web@good", "web2", "--dry-run", "--json").document["placed"][1]["host_id"] == "h1"
    assert tt("env", "clone", "web@good", "web2", "-e", "NAME=clone").out.startswith("created environment web2\nVMs: 2")
    clone = tt("vm", "list", "--env", "web2", "--json").document["vms"][0]["id"]
    assert tt("exec", clone, "--", "sh", "-c", "cat /srv/site/sub/a; echo $NAME").out == "aclone\n"
    assert "VMs: 2" in tt("env", "create", "web3", "--from", f"{vm}@good", "--dup", "2").out
    tt("env", "create", "web4", "--from", vm, code=2)
    tt("env", "create", "web4", "--from", f"{vm}@good", "-i", "tiny", code=2)
    tt("env", "create", "web4", "--from", f"{vm}@good", "--deny-outgoing", code=2)
    tt("env", "clone", "web@none", "web4", code=5)
    assert tt("vm", "restore", vm, "good").out == f"{vm} is running\n"
    assert tt("vm", "forget", vm, "good").out == f"forgot good of {vm}\n"
    for name in ("web2", "web3"):
        tt("env", "delete", name)


def _copies(tt: Tt, vm: str) -> None:
    folder = tt.home / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")
    (folder / "b").write_bytes(b"\x00\xff")
    tt("cp", "site", f"{vm}:/srv/site")
    tt("cp", "site/b", f"{vm}:/srv/")
    found = tt("exec", vm, "--", "find", "/srv", "-type", "f").out.split()
    assert sorted(found) == ["/srv/b", "/srv/site/b", "/srv/site/sub/a"]
    tt("cp", f"{vm}:/srv/site", "back")
    assert (tt.home / "back" / "sub" / "a").read_text() == "a"
    tt("cp", f"{vm}:/srv/b", "back")
    assert (tt.home / "back" / "b").read_bytes() == b"\x00\xff"
    tt("cp", f"{vm}:/srv/nothing", "there", code=5)
    assert not (tt.home / "there").exists()
    tt("cp", "a", "b", code=2)


def test_a_wrong_key_and_a_wrong_word_have_their_own_exit_codes(tt: Tt) -> None:
    named = ("-s", tt.controller)
    told = tt(*named, "host", "list", key="another", code=4)
    assert "another" not in told.out + told.err
    assert tt(*named, "host", "list", key=KEY).code == 0
    assert tt("host", "list", "-s", tt.controller, "-k", KEY, "--json").document["count"] >= 0
    assert tt("env", "create", "x", code=2).err
    assert tt("env", "list", "-s", f"127.0.0.1:{free_port()}", code=3).err.startswith("error: no controller answers")
