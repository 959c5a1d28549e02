"""The recipes of the README do what they say, on a running town; only the clouds' own programs are stood in for."""

import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import need
from tests.e2e.test_schemathesis import Town, ask

README = Path(__file__).parent.parent.parent / "README.md"
ADDRESS = "http://townhall:8080"
RECORDER = """#!/bin/sh
printf '%s\\n' "$*" >>"$RECORDED"
"""


def block(language: str, holding: str) -> str:
    """Return the README's block of code that holds ``holding``."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    found = [text for text in blocks if holding in text]
    assert len(found) == 1, f"{len(found)} blocks hold {holding!r}"
    return found[0]


def scaling(town: Town) -> dict[str, Any]:
    signal: dict[str, Any] = ask(town, "GET", "/api/scaling")
    return signal


@pytest.fixture
def busy_town(running_town: Town) -> Town:
    """A town where work waits that nobody does."""
    for number in range(3):
        ask(running_town, "POST", "/v1/backlog", {"description": f"Work {number}", "role": "nobody-has-it"})
    return running_town


def run_recipe(script: str, town: Town, program: str, folder: Path) -> list[list[str]]:
    """Run a recipe; return the arguments of each call of ``program``, which only writes them down."""
    for needed in ("bash", "curl", "jq", "python3"):
        need(shutil.which(needed), needed, f"apt-get install {needed}")
    stand_in = folder / program
    stand_in.write_text(RECORDER)
    stand_in.chmod(0o755)
    recorded = folder / "recorded"
    recorded.touch()
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, town.url) + "\nwait"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "RECORDED": str(recorded)},
        check=True,
        timeout=30,
    )
    return [line.split() for line in recorded.read_text().splitlines()]


def test_keda_reads_the_depth_of_the_queue(busy_town: Town) -> None:
    scaled = yaml.safe_load(block("yaml", "keda.sh"))
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (0, 10)
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "metrics-api"
    assert trigger["metadata"]["targetValue"] == "1"
    url = trigger["metadata"]["url"].replace(ADDRESS, busy_town.url)
    with urllib.request.urlopen(url, timeout=10) as answer:  # no key: the signal is public
        value = json.load(answer)
    for name in trigger["metadata"]["valueLocation"].split("."):
        value = value[name]
    assert float(value) == scaling(busy_town)["queue_depth"] >= 3


def test_cloud_run_is_told_how_many_instances_to_run(busy_town: Town, tmp_path: Path) -> None:
    [call] = run_recipe(block("bash", "gcloud"), busy_town, "gcloud", tmp_path)
    assert call[:4] == ["run", "worker-pools", "update", "tinytown-agent-worker"]
    assert call[4:] == ["--instances", str(scaling(busy_town)["desired_agents"])]
    assert int(call[-1]) >= 3


def test_the_own_scaler_starts_what_is_missing(busy_town: Town, tmp_path: Path) -> None:
    before = scaling(busy_town)
    calls = run_recipe(block("bash", "desired active"), busy_town, "borough", tmp_path)
    assert len(calls) == before["desired_agents"] - before["active_agents"]
    names = {call[call.index("--name") + 1] for call in calls}
    assert len(names) == len(calls) > 0
    assert all(call[:3] == ["worker", "--server", busy_town.url] for call in calls)
