"""What container runtimes say differently, and what is made of it."""

import pytest

from borough.adapters.engines.docker.bodies import is_podman, tag_of
from borough.fleet.vms import VmId

VM = VmId("1b9d6bcd-bbf")
OWN = f"borough/snapshot-{VM}:good"


@pytest.mark.parametrize("tag", [OWN, f"docker.io/{OWN}", f"localhost/{OWN}"])
def test_a_snapshot_is_found_by_its_name_whatever_registry_it_is_said_to_be_of(tag: str) -> None:
    others = ["borough/origin-1b9d6bcd-bbe:made-from", "borough/snapshot-1b9d6bcd-bbe:good"]
    assert tag_of(VM, {"RepoTags": [*others, tag]}) == tag


def test_podman_is_told_from_docker() -> None:
    assert is_podman({"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]})
    assert not is_podman({"Components": [{"Name": "Engine"}, {"Name": "containerd"}]})
    assert not is_podman({})
