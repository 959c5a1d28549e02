"""Names, engines, storage, sizes, SSH keys: what is accepted and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid, NotFound
from borough.fleet.engines import ISOLATION, REFERENCE_ENGINES, Engine, parse_engine
from borough.fleet.images import RECIPES, recipe
from borough.fleet.names import MOST_NAME_BYTES, check_name, check_reference
from borough.fleet.resources import Holding, Resource, Size, promised
from borough.fleet.ssh_keys import check_key, check_keys, is_usable
from borough.fleet.storage import Storage, parse_storage

GOOD_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0Yk0sVbq8nWZgmjiCwXWGM3ZbVbUMl5zKQ0l0c2fN bob@desk"
SIZE = Size(cpu=2, mem_mib=1024, disk_mib=4096)


@pytest.mark.parametrize("name", ["ubuntu-22.04", "my-env", "a", "A_b.c", "-x", "x" * MOST_NAME_BYTES])
def test_names_are_words(name: str) -> None:
    assert check_name(name, what="a test") == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a\0", "a/b", "..", "a..b", ".a", "a b", "a!", "a@b", "é", "a\n", "../etc"]
)
def test_what_could_be_a_path_or_a_command_is_no_name(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name, what="a test")
    assert refused.value.code == "invalid_name"


@given(st.text(max_size=200))
def test_a_name_never_leads_anywhere(text: str) -> None:
    try:
        name = check_name(text, what="a test")
    except Invalid:
        return
    assert name == text
    assert not set(name) & set("/\\ \0\n")
    assert name not in {".", ".."}
    assert ".." not in name


@pytest.mark.parametrize(
    "reference", ["alpine", "nginx:1.27", "registry.example:5000/team/tool@sha256:ab12", "a" * 512]
)
def test_containers_are_named_with_registry_tag_and_digest(reference: str) -> None:
    assert check_reference(reference) == reference


@pytest.mark.parametrize("reference", ["", "-rm", "/etc", "a b", "a;b", "a..b", "$(x)", "a" * 513])
def test_what_a_runtime_could_misread_is_no_reference(reference: str) -> None:
    with pytest.raises(Invalid):
        check_reference(reference)


def test_engines_are_known_by_other_names_on_command_lines() -> None:
    assert [parse_engine(word) for word in ("KVM", "fc", "Podman", " qemu ", "bwrap")] == [
        Engine.QEMU,
        Engine.FIRECRACKER,
        Engine.DOCKER,
        Engine.QEMU,
        Engine.BUBBLEWRAP,
    ]
    with pytest.raises(Invalid) as refused:
        parse_engine("xen")
    assert refused.value.code == "unknown_engine"
    assert set(ISOLATION) == set(Engine)
    assert {engine.value for engine in REFERENCE_ENGINES} == {"qemu", "firecracker", "docker", "bhyve", "jail"}


def test_storage_has_aliases_and_nothing_is_guessed() -> None:
    words = ("file", "raw", "ZVOL", "zfs")
    assert [parse_storage(word) for word in words] == [Storage.FILE, Storage.FILE, Storage.ZVOL, Storage.ZVOL]
    with pytest.raises(Invalid) as refused:
        parse_storage("btrfs")
    assert refused.value.code == "unknown_storage"


def test_the_recipes_of_the_reference_are_there_and_two_that_need_no_internet() -> None:
    reference = [
        "alpine", "debian", "ubuntu", "rockylinux", "nginx", "redis", "postgres", "fc-alpine",
        "alpine-cloud", "debian-cloud", "ubuntu-cloud", "freebsd-base",
    ]  # fmt: skip
    assert list(RECIPES)[:12] == reference
    assert [each.name for each in RECIPES.values() if each.local] == ["local-root", "local-vm"]
    with pytest.raises(NotFound):
        recipe("windows")


def test_all_that_is_left_may_be_taken_and_nothing_more() -> None:
    left = Resource(cpu_total=4, cpu_used=2, mem_total=2048, mem_used=1024, disk_total=8192, disk_used=4096)
    assert left.fits(SIZE)
    assert not left.with_one_more(SIZE).fits(Size(cpu=1, mem_mib=1, disk_mib=1))
    assert not Resource().fits(Size(cpu=1, mem_mib=1, disk_mib=1))
    over = Resource(cpu_total=1, cpu_used=3)
    assert over.cpu_free == 0


_SIZES = st.builds(
    lambda cpu, mem, disk: Size(cpu=cpu, mem_mib=mem, disk_mib=disk),
    st.integers(1, 64),
    st.integers(1, 10_000),
    st.integers(1, 10_000),
)


@given(st.lists(st.tuples(_SIZES, st.booleans())))
def test_a_stopped_machine_holds_its_disk_only(machines: list[tuple[Size, bool]]) -> None:
    sums = promised(Resource(cpu_total=7), [Holding(size=size, running=running) for size, running in machines])
    assert sums.cpu_total == 7
    assert sums.cpu_used == sum(size.cpu for size, running in machines if running)
    assert sums.mem_used == sum(size.mem_mib for size, running in machines if running)
    assert sums.disk_used == sum(size.disk_mib for size, _ in machines)
    assert sums.vm_count == len(machines)


def test_keys_are_lines_of_type_and_body() -> None:
    assert check_key(f"  {GOOD_KEY}\n") == GOOD_KEY
    assert check_key("ssh-ed25519 AAAA... alice@laptop") == "ssh-ed25519 AAAA... alice@laptop"
    assert check_keys([GOOD_KEY, "ssh-rsa BBBB", GOOD_KEY]) == (GOOD_KEY, "ssh-rsa BBBB")
    assert is_usable(GOOD_KEY)
    assert not is_usable("ssh-ed25519 AAAA... alice@laptop")
    assert not is_usable("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJb0Yk0sVbq8nWZgmjiCwXWGM3ZbVbUMl5zKQ0l0c2fN")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ssh-ed25519",
        "/home/bob/.ssh/id_ed25519.pub",
        "ssh-ed25519 AAAA\nruncmd: [reboot]",
        "ssh-ed25519 $(reboot)",
        "command=x ssh-rsa AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY----- secretsecret",
        "ssh-rsa " + "A" * 20_000,
    ],
)
def test_what_is_no_public_key_is_refused_and_never_repeated(key: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_key(key)
    assert refused.value.code == "invalid_ssh_key"
    assert "secretsecret" not in f"{refused.value.message}{refused.value.reason}{refused.value.resolution}"
