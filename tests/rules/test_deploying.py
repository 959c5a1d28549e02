"""What is put on machines to run the fleet there."""

import subprocess

import pytest

from borough.cli.deploying import (
    Deployment,
    Target,
    agent_service,
    controller_service,
    deployment,
    environment_file,
    scp_argv,
    script,
    size_mib,
    ssh_argv,
    unit,
)
from borough.cli.tt_deploy import local_lacks
from borough.core.errors import Invalid

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
    assert '"--host-id" "rack%%1$$x"' in text
    assert "api-key" not in text


def test_the_script_is_a_shell_s_and_the_key_is_in_a_private_file_only() -> None:
    text = script(controller_service(), Deployment(services=()), api_key=KEY, wheel="/tmp/borough.whl")
    checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = text.splitlines()
    (place,) = [number for number, line in enumerate(lines) if "k3y-" in line]
    assert lines[place] + "\n" == environment_file(KEY)
    assert lines[place - 1].startswith("cat > /opt/ttstack/etc/tt-ctl.env.new <<'")
    assert lines[place + 2] == "chmod 0600 /opt/ttstack/etc/tt-ctl.env.new"
    assert lines[1] == "umask 077"


def test_what_a_shell_writes_is_what_was_meant(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("etc")
    text = script(controller_service(), Deployment(services=(), prefix=str(folder)), api_key=KEY, wheel="w.whl")
    begin = text.index(f"cat > {folder}/etc")
    (folder / "etc").mkdir()
    piece = text[begin : text.index("cat > /etc/systemd")]
    subprocess.run(["sh", "-eu"], input=piece, text=True, check=True)
    written = folder / "etc" / "tt-ctl.env"
    assert written.read_text() == environment_file(KEY)
    assert written.stat().st_mode & 0o777 == 0o600


def test_ssh_checks_who_answers_and_carries_no_key() -> None:
    target = Target(host="2001:db8::1", ssh_user="admin", ssh_port=2222)
    for argv in (ssh_argv(target), scp_argv(target, "a.whl", "/tmp/a.whl")):
        assert "StrictHostKeyChecking=accept-new" in argv
        assert "2222" in argv
    assert ssh_argv(target)[-5:] == ["2001:db8::1", "sudo", "-n", "sh", "-s"]
    assert scp_argv(target, "a.whl", "/tmp/a.whl")[-1] == "admin@[2001:db8::1]:/tmp/a.whl"
    assert ssh_argv(Target(host="h"))[-3:] == ["h", "sh", "-s"]


def test_sizes() -> None:
    assert [size_mib(text, "x") for text in ("200G", "1g", "512", 7)] == [204_800, 1024, 512, 7]


def test_a_machine_says_what_it_lacks() -> None:
    assert local_lacks(is_root=True, has_systemd=True) is None
    assert local_lacks(is_root=False, has_systemd=True) == "it needs root's rights"
    assert "systemd" in (local_lacks(is_root=True, has_systemd=False) or "")
