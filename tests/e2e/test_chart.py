"""The Helm chart: rendered by Helm's engine, checked against the API server's schemas, true of a running town."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from borough.adapters.credentials.argon2 import new_api_key
from tests.conftest import need
from tests.e2e.conftest import RunningTown, start_town, stop_town, until
from tests.e2e.test_autoscaler_recipes import block

TOOLS = Path(__file__).parents[2] / ".venv-packaging" / "bin" / "python"
ASKED = {"town": {"apiKeyHash": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"}, "worker": {"tokenSecret": "town-key"}}


def tool(values: dict[str, Any], *also: dict[str, Any]) -> dict[str, Any]:
    need(TOOLS.exists(), "Helm's engine and Kubernetes' schemas", "make .venv-packaging/.made-from-the-lock")
    done = subprocess.run(
        [TOOLS, Path(__file__).with_name("chart_tools.py")],
        input=json.dumps({"values": values, "also": also}), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def objects(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the chart's objects, which the schemas let pass, by kind."""
    made = tool(values)
    assert "refused" not in made, made
    found = {one["kind"]: one for one in made["objects"]}
    assert len(found) == len(made["objects"])
    return found


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, Any]]:
    return objects(ASKED)


def container(of: dict[str, Any]) -> dict[str, Any]:
    [only] = of["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_it_holds_a_town_workers_and_the_rule_that_starts_them(plain: dict[str, dict[str, Any]]) -> None:
    assert set(plain) == {"ConfigMap", "Service", "StatefulSet", "Deployment", "ScaledObject"}
    assert plain["Service"]["metadata"]["name"] == "townhall"
    for kind in ("StatefulSet", "Deployment"):
        chosen = plain[kind]["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= plain[kind]["spec"]["template"]["metadata"]["labels"].items()
    assert (
        plain["Service"]["spec"]["selector"].items()
        <= plain["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert plain["StatefulSet"]["spec"]["replicas"] == 1


def test_keda_is_told_what_the_readme_tells_it(plain: dict[str, dict[str, Any]]) -> None:
    scaled, told = plain["ScaledObject"], yaml.safe_load(block("yaml", "keda.sh"))
    assert scaled["apiVersion"] == told["apiVersion"]
    assert scaled["spec"]["scaleTargetRef"] == told["spec"]["scaleTargetRef"]
    assert plain["Deployment"]["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]
    assert "replicas" not in plain["Deployment"]["spec"], "KEDA alone says how many there are"
    [trigger], [expected] = scaled["spec"]["triggers"], told["spec"]["triggers"]
    url = trigger["metadata"].pop("url")
    assert url == expected["metadata"].pop("url").replace("townhall", "townhall.agents"), "KEDA asks from elsewhere"
    assert trigger == expected


def test_no_container_may_more_than_it_needs(plain: dict[str, dict[str, Any]]) -> None:
    for kind in ("StatefulSet", "Deployment"):
        pod = plain[kind]["spec"]["template"]["spec"]
        confined = container(plain[kind])["securityContext"]
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert (confined["runAsNonRoot"], confined["readOnlyRootFilesystem"]) == (True, True)
        assert (confined["allowPrivilegeEscalation"], confined["capabilities"]) == (False, {"drop": ["ALL"]})


def test_the_key_is_in_no_object_but_the_secret_that_is_named(plain: dict[str, dict[str, Any]]) -> None:
    pod = plain["Deployment"]["spec"]["template"]["spec"]
    [token] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert token["secretName"] == "town-key"
    [file] = [each["value"] for each in container(plain["Deployment"])["env"] if each["name"] == "BOROUGH_TOKEN_FILE"]
    [mount] = [each for each in container(plain["Deployment"])["volumeMounts"] if each["name"] == "token"]
    assert Path(file) == Path(mount["mountPath"]) / "token"


def test_without_keda_the_number_of_workers_is_a_value() -> None:
    made = objects({**ASKED, "autoscaling": {"enabled": False}, "worker": {**ASKED["worker"], "replicas": 4}})
    assert "ScaledObject" not in made
    assert made["Deployment"]["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"worker": {"tokenSecret": "s"}}, "/town/apiKeyHash"),
        ({"town": ASKED["town"]}, "/worker/tokenSecret"),
        ({**ASKED, "scaling": {}}, "scaling"),
        ({**ASKED, "autoscaling": {"maxReplicas": 0}}, "/autoscaling/maxReplicas"),
    ],
    ids=["no key", "no secret", "unknown", "none at all"],
)
def test_values_that_cannot_be_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    assert named in tool(values)["refused"]


def test_a_member_that_the_api_server_does_not_know_would_be_found(plain: dict[str, dict[str, Any]]) -> None:
    for kind in ("Service", "ScaledObject"):
        wrong = {**plain[kind], "spec": {**plain[kind]["spec"], "unheardOf": 1}}
        with pytest.raises(AssertionError, match="unheardOf"):
            tool(ASKED, wrong)


def test_its_settings_and_commands_are_those_of_a_town_that_serves(tmp_path: Path) -> None:
    key, phc = new_api_key()
    values = {
        "town": {"apiKeyHash": phc, "settings": "[townhall.rate_limit]\nenabled = false\n"},
        "worker": {"tokenSecret": "s", "cli": "true"},
    }
    made = objects(values)
    settings = made["ConfigMap"]["data"]["tinytown.toml"]
    assert tomllib.loads(settings)["townhall"]["rate_limit"] == {"enabled": False}, "or this test asks too often"
    (tmp_path / "tinytown.toml").write_text(settings)
    probes = container(made["StatefulSet"])
    assert probes["args"] == ["townhall", "rest"]
    town = start_town(tmp_path)
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert town.request("GET", probes[probe]["httpGet"]["path"], token=None).status == 200
        assert town.request("GET", "/v1/status", token=None).status == 401
        assert town.request("GET", "/v1/status", token=key).status == 200
        worker = container(made["Deployment"])
        assert worker["args"] == ["borough", "worker"]
        (tmp_path / "token").write_text(key)
        (tmp_path / "token").chmod(0o444)
        told = {each["name"]: each.get("value", "pod-1") for each in worker["env"]}
        told |= {"BOROUGH_SERVER": town.url, "BOROUGH_TOKEN_FILE": str(tmp_path / "token")}
        argv = [sys.executable, "-c", "import sys; from borough.cli.borough import main; sys.exit(main())", "worker"]
        with subprocess.Popen(argv, env={**os.environ, **told}, cwd=tmp_path) as process:
            try:
                until(lambda: _idle(town, key) == ["pod-1"], process=process)
            finally:
                process.terminate()
        assert process.returncode == 0
    finally:
        stop_town(town)


def _idle(town: RunningTown, key: str) -> list[str]:
    agents = town.request("GET", "/v1/agents", token=key).json()["agents"]
    return [agent["name"] for agent in agents if agent["state"] == "Idle"]
