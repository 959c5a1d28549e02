"""``tt image create`` as a person or a script uses it, on a machine that reaches nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from borough.core.errors import Invalid, NotFound
from borough.fleet.engines import Engine
from borough.fleet.images import RECIPES, chosen
from tests.conftest import need


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def images(self) -> list[dict[str, Any]]:
        return list(json.loads(self.out)["images"])


def create(folder: Path, *words: str) -> Ran:
    env = {**os.environ, "HOME": str(folder), "DOCKER_HOST": f"unix://{folder}/no.sock"}
    argv = [sys.executable, "-m", "borough.cli.tt", "image", "create", *words, "--image-dir", str(folder / "images")]
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_local_image_is_made_once_and_told_as_it_goes(tmp_path: Path) -> None:
    need(shutil.which("busybox"), "busybox", "apt-get install busybox-static")
    first = create(tmp_path, "local-root", "--json")
    assert first.code == 0, first.err
    [image] = first.images
    assert (image["name"], image["engine"], image["state"]) == ("local-root", "bubblewrap", "made")
    assert image["digest"].startswith("sha256:")
    assert all(line.startswith("[image] ") for line in first.err.splitlines())
    again = create(tmp_path, "all", "--engine", "bwrap", "--json")
    assert again.code == 0
    assert again.images == [{**image, "state": "there"}]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [".images.json", "local-root"]


def test_what_cannot_be_made_is_told_and_keeps_none_of_the_others_from_it(tmp_path: Path) -> None:
    told = create(tmp_path, "all", "--engine", "docker", "--json")
    assert told.code == 1
    containers = [name for name, recipe in RECIPES.items() if recipe.engine is Engine.DOCKER]
    assert [(each["name"], each["state"]) for each in told.images] == [(name, "failed") for name in containers]
    assert told.err.count("[image] warning: ") == len(containers)
    alone = create(tmp_path, "nginx")
    assert (alone.code, alone.out) == (1, "")
    assert "no.sock" in alone.err


def test_packages_that_were_given_are_used_and_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "debs").mkdir()
    told = create(tmp_path, "local-vm", "--packages", "debs")
    assert told.code == 1
    assert "there is no kernel among the packages" in told.err
    assert list((tmp_path / "images").iterdir()) == []


def test_a_recipe_that_is_unknown_is_told_with_the_way_to_the_known(tmp_path: Path) -> None:
    told = create(tmp_path, "nothing")
    assert told.code == 5
    assert "tt image recipes" in told.err
    assert not (tmp_path / "images").exists()


def test_all_means_what_makes_sense_on_a_system() -> None:
    linux, freebsd = (chosen("all", engine=None, system=system) for system in ("linux", "freebsd14"))
    assert {each.name for each in linux.wanted} | linux.skipped.keys() == RECIPES.keys()
    assert linux.skipped.keys() == {"freebsd-base"}
    assert freebsd.skipped.keys() == {"fc-alpine"}
    assert [each.name for each in chosen("fc-alpine", engine=None, system="freebsd14").wanted] == ["fc-alpine"]
    assert not chosen("all", engine=Engine.JAIL, system="linux").wanted
    with pytest.raises(NotFound):
        chosen("all", engine=Engine.BHYVE, system="linux")
    with pytest.raises(Invalid) as refused:
        chosen("nginx", engine=Engine.DOCKER, system="linux")
    assert refused.value.code == "engine_without_all"
