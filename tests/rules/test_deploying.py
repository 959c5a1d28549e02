"""What is put on machines to run the fleet there."""

import os
import subprocess
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from borough.cli.deploy_scripts import environment_file, script, ssh_argv, unit, wheel_of
from borough.cli.deploying import Deployment, Target, agent_service, controller_service, deployment, size_mib
from borough.cli.tt_deploy import local_lacks
from borough.core.errors import Invalid

WHEEL = wheel_of("borough-0.1.0-py3-none-any.whl", b"not a wheel" * 100)
KEY = "k3y-$HOME-'quoted'-\"too\"-%n"


def test_defaults_are_those_of_the_reference() -> None:
    made = deployment({"controller": {"host": "10.0.0.1"}, "agents": [{"host": "10.0.0.2"}]})
    ctl, agent = made.services
    assert (made.prefix, made.user, made.api_key) == ("/opt/ttstack", "ttstack", None)
    assert ctl.arguments == ("--listen", "0.0.0.0:9200", "--data-dir", "/home/ttstack/ctl")
    assert ctl.target == Target(host="10.0.0.1", ssh_user="root", ssh_port=22)
    assert (ctl.user, agent.user) == ("ttstack", "root")
    assert agent.arguments[:4] == ("--listen", "0.0.0.0:9100", "--image-dir", "/home/ttstack/images")
    assert agent.arguments[-2:] == ("--disk-total", "204800")
    assert deployment({}).services == ()


@pytest.mark.parametrize(
    "document",
    [
        {"other": {}},
        {"general": {"prefix": "relative"}},
        {"general": {"prefix": "/opt/../etc"}},
        {"general": {"prefix": "/opt/a b"}},
        {"general": {"user": "root; reboot"}},
        {"general": {"api_key": "with blank"}},
        {"controller": {}},
        {"controller": {"host": "-oProxyCommand=reboot"}},
        {"controller": {"host": "h", "listen": "anywhere"}},
        {"agents": [{"host": "h", "ssh_port": "22"}]},
        {"agents": [{"host": "h", "storage": "tape"}]},
        {"agents": [{"host": "h", "disk_total": "many"}]},
        {"agents": [{"host": "h", "image_dir": "/a,/b"}]},
        {"agents": [{"host": "h", "host_id": "../x"}]},
        {"agents": [{"host": "h", "join_only": "yes"}]},
    ],
)
def test_what_cannot_be_meant_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        deployment(document)


def test_a_unit_lets_machines_run_on_and_has_no_key() -> None:
    text = unit(agent_service(host_id="rack%1$x"), "/opt/ttstack")
    assert "KillMode=process\n" in text
    assert "EnvironmentFile=/opt/ttstack/etc/tt-agent.env\n" in text
    assert "LimitNOFILE=65536\n" in text
    assert "Type=notify\n" in text
    assert '"--host-id" "rack%%1$$x"' in text
    assert "api-key" not in text


def test_the_script_is_a_shell_s_and_the_key_is_in_a_private_file_only() -> None:
    text = script(controller_service(), Deployment(services=()), api_key=KEY, wheel=WHEEL)
    checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = text.splitlines()
    (place,) = [number for number, line in enumerate(lines) if "k3y-" in line]
    assert lines[place] + "\n" == environment_file(KEY)
    assert lines[place - 1].startswith("cat > /opt/ttstack/etc/tt-ctl.env.new <<'")
    assert lines[place + 2] == "chmod 0600 /opt/ttstack/etc/tt-ctl.env.new"
    assert lines[:3] == ["deploy() {", "set -eu", "umask 077"]
    assert lines[-2:] == ["}", "deploy </dev/null"]


def test_what_a_shell_writes_is_what_was_meant(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("etc")
    text = script(controller_service(), Deployment(services=(), prefix=str(folder)), api_key=KEY, wheel=WHEEL)
    begin = text.index(f"cat > {folder}/etc")
    (folder / "etc").mkdir()
    piece = text[begin : text.index("install -m 0644")]
    subprocess.run(["sh", "-eu"], input=piece, text=True, check=True)
    written = folder / "etc" / "tt-ctl.env"
    assert written.read_text() == environment_file(KEY)
    assert written.stat().st_mode & 0o777 == 0o600


def test_ssh_checks_who_answers_and_carries_no_key() -> None:
    target = Target(host="2001:db8::1", ssh_user="admin", ssh_port=2222)
    argv = ssh_argv(target)
    assert "StrictHostKeyChecking=accept-new" in argv
    assert "2222" in argv
    assert argv[-5:] == ["2001:db8::1", "sudo", "-n", "sh", "-s"]
    assert ssh_argv(Target(host="h"))[-3:] == ["h", "sh", "-s"]
    careful = ssh_argv(target, config="mine", known_only=True)
    assert "StrictHostKeyChecking=yes" in careful
    assert careful[careful.index("-F") + 1] == "mine"


def test_a_script_that_does_not_come_whole_does_nothing(tmp_path: Path) -> None:
    made = Deployment(services=(), prefix=str(tmp_path / "opt"), user="root")
    text = script(controller_service(user="root"), made, api_key=KEY, wheel=WHEEL, start=False)
    for end in range(len(text) // 10, len(text) - 20, len(text) // 10):
        subprocess.run(["sh", "-s"], input=text[:end], text=True, capture_output=True, check=False)
        assert not (tmp_path / "opt").exists()


def test_a_package_that_is_not_what_was_sent_is_not_installed(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("a deployment is root's")
    made = Deployment(services=(), prefix=str(tmp_path / "opt"), user="root")
    service = controller_service(user="root", data_dir=str(tmp_path / "data"))
    text = script(service, made, api_key=KEY, wheel=replace(WHEEL, sha256="0" * 64), start=False)
    done = subprocess.run(["sh", "-s"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert not (tmp_path / "opt" / "venv").exists()
    assert not list((tmp_path / "opt" / "releases").iterdir())


def test_a_host_that_is_joined_by_token_is_not_told_the_fleets_key() -> None:
    made = deployment({"agents": [{"host": "h", "join_only": True, "data_dir": "/srv/data", "release_dir": "arm"}]})
    (agent,) = made.services
    assert agent.arguments[-1] == "--join-only"
    assert agent.release_dir == "arm"
    assert agent.arguments[agent.arguments.index("--data-dir") + 1] == "/srv/data"
    assert KEY not in script(agent, made, api_key=KEY, wheel=WHEEL)
    assert environment_file(KEY) in script(agent_service(), made, api_key=KEY, wheel=WHEEL)


def test_a_file_that_is_no_wheel_of_ours_is_not_sent() -> None:
    for name in (
        "borough.whl",
        "other-1-py3-none-any.whl",
        "borough-1-py3-none-any.whl;reboot",
        "borough-1-py3-none-a'.whl",
    ):
        with pytest.raises(Invalid):
            wheel_of(name, b"")
    assert b64decode(WHEEL.text) == b"not a wheel" * 100


def test_sizes() -> None:
    assert [size_mib(text, "x") for text in ("200G", "1g", "512", 7)] == [204_800, 1024, 512, 7]


def test_a_machine_says_what_it_lacks() -> None:
    assert local_lacks(is_root=True, has_systemd=True) is None
    assert local_lacks(is_root=False, has_systemd=True) == "it needs root's rights"
    assert "systemd" in (local_lacks(is_root=True, has_systemd=False) or "")
