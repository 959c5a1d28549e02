"""``tt-ctl`` and ``tt-agent`` as programs: flags, environment, folders, and what they refuse to start with."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from borough.config.fleet import controller_settings, default_folder, host_settings, parse_listen
from borough.core.errors import Invalid
from borough.fleet.storage import Storage


def environment(tmp_path: Path, **other: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), **other}


@contextmanager
def program(name: str, *arguments: str, env: dict[str, str]) -> Iterator[str]:
    """Start a program, yield its address, and end it in order."""
    argv = [sys.executable, "-m", f"borough.cli.{name}", "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        address = ""
        for line in started.stdout:
            if b" listens on " in line:
                address = line.decode().split()[-1]
                break
        try:
            assert address, "it did not start"
            yield address
        finally:
            started.send_signal(signal.SIGTERM)
            assert started.wait(30) == 0


def ask(url: str, *, key: str | None = None, body: Any = None) -> Any:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    if body is not None:
        request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_the_two_find_each_other_by_the_key_of_their_environment(tmp_path: Path) -> None:
    env = environment(tmp_path, TT_API_KEY="tt-secret")
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("image", "runtime", "data")]
    agent = program("tt_agent", *folders, "--host-id", "rack1", "--cpu-total", "3", "--user-network", env=env)
    with agent as host, program("tt_ctl", f"--data-dir={tmp_path / 'ctl'}", env=env) as controller:
        info = ask(f"{host}/api/info", key="tt-secret")["data"]
        assert (info["host_id"], info["resource"]["cpu_total"], info["resource"]["disk_total"]) == ("rack1", 3, 204_800)
        made = ask(f"{controller}/api/hosts", key="tt-secret", body={"addr": host.removeprefix("http://")})
        assert made["data"]["id"] == "rack1"
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{controller}/api/hosts")
        assert refused.value.code == 401
        refused.value.close()
        record = json.loads((tmp_path / "ctl" / "server.json").read_text())
        assert record["address"] == controller
    assert not (tmp_path / "ctl" / "server.json").exists()
    assert (tmp_path / "ctl" / "ctl.db").stat().st_mode & 0o077 == 0
    assert (tmp_path / "data" / "join.token").stat().st_mode & 0o077 == 0


def test_the_line_that_a_host_prints_adds_it(tmp_path: Path) -> None:
    env = environment(tmp_path)
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("image", "runtime", "data")]
    agent = program("tt_agent", *folders, "--host-id", "rack1", "--join-only", "--tls", "--user-network", env=env)
    with agent as host, program("tt_ctl", f"--data-dir={tmp_path / 'ctl'}", env=env) as controller:
        assert host.startswith("https://127.0.0.1:")
        argv = [sys.executable, "-m", "borough.cli.tt_agent", "--invite", f"--data-dir={tmp_path / 'data'}"]
        invited = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=True)
        line = invited.stdout.strip()
        assert "\n" not in line
        assert line.endswith(f" tt host add {host.removeprefix('https://')}")
        assert "good once, until" in invited.stderr
        as_pasted = {**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
        argv = ["sh", "-c", f"{line} --server {controller} --json"]
        added = subprocess.run(argv, env=as_pasted, capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(added.stdout)["id"] == "rack1"
        again = subprocess.run(argv, env=as_pasted, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 1
        assert "token_refused" in again.stdout + again.stderr
        assert ask(f"{controller}/api/hosts")["data"][0]["state"] == "online"


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("tt_ctl", ["--listen", "0.0.0.0:9200"], "--insecure"),
        ("tt_ctl", ["--listen", "nowhere"], "host:port"),
        ("tt_ctl", ["--api-key", ""], "not usable"),
        ("tt_agent", ["--listen", "0.0.0.0:9100"], "--insecure"),
        ("tt_agent", ["--storage", "btrfs"], "choose file"),
        ("tt_agent", ["--host-id", "../x"], "is not a name for a host"),
    ],
)
def test_what_would_be_wrong_is_refused_before_anything_is_opened(
    tmp_path: Path, name: str, arguments: list[str], told: str
) -> None:
    argv = [sys.executable, "-m", f"borough.cli.{name}", *arguments]
    done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_port_that_is_taken_is_told_with_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        argv = [sys.executable, "-m", "borough.cli.tt_ctl", "--listen", f"127.0.0.1:{port}"]
        argv.append(f"--data-dir={tmp_path / 'ctl'}")
        done = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use by pid {os.getpid()}" in done.stderr


def test_settings_have_the_defaults_of_the_reference(tmp_path: Path) -> None:
    host = host_settings({"HOME": str(tmp_path)})
    assert (host.listening.host, host.listening.port, host.storage) == ("127.0.0.1", 9100, Storage.FILE)
    assert (host.cpu_total, host.mem_total_mib, host.disk_total_mib, host.most_vms) == (0, 0, 204_800, 1000)
    assert host_settings({}, storage="zfs").storage is Storage.ZVOL
    controller = controller_settings({"TT_API_KEY": "k"}, listen="[::]:9200")
    assert (controller.listening.port, controller.most_hosts, controller.most_vms) == (9200, 50, 1000)
    assert "k" not in repr(controller).split("api_key")
    assert controller_settings({"TT_API_KEY": "k"}, api_key="other").listening.api_key == "other"


def test_a_user_who_may_not_write_to_the_references_folders_has_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert default_folder("ctl", env) == tmp_path / "state" / "borough" / "ctl"
    assert default_folder("ctl", {"HOME": str(tmp_path)}) == tmp_path / ".local" / "state" / "borough" / "ctl"
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert default_folder("ctl", env) == Path("/home/ttstack/ctl")


@pytest.mark.parametrize("listen", ["", ":9200", "a:b", "1.2.3.4:70000", "http://x:1"])
def test_what_is_no_address_to_listen_on(listen: str) -> None:
    with pytest.raises(Invalid):
        parse_listen(listen)
