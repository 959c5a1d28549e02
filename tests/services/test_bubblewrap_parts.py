"""What boxes are made of, part by part: what is shown, which limits, which groups, which programs."""

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.adapters.engines.bubblewrap import argv, cgroups, landlock, plans, programs, skeleton
from borough.adapters.engines.bubblewrap.argv import BoxView, System
from borough.adapters.engines.bubblewrap.cgroups import Amounts, Groups
from borough.adapters.engines.bubblewrap.limits import BoxLimits, resource_limits
from borough.adapters.engines.bubblewrap.skeleton import Interpreters
from borough.adapters.engines.bubblewrap.view import Bind, host_binds, overlaps, readable
from borough.core.errors import Unavailable
from borough.governance.capabilities import parse_capability
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Network, Program, Resources, Runtime
from borough.governance.rules import Effect, Rule
from borough.governance.trust import TrustLevel
from tests import boxes

HIDDEN = ("/var/lib/agentd",)

# -- what of the host is shown -----------------------------------------------------------------------------------------


def shown(*capabilities: str, trust: TrustLevel = TrustLevel.SANDBOXED, deny: tuple[str, ...] = ()) -> dict[str, bool]:
    rules = tuple(
        Rule(id=f"no{n}", effect=Effect.DENY, capability=parse_capability(text)) for n, text in enumerate(deny)
    )
    of = boxes.manifest(trust=trust, capabilities=capabilities, policy=rules)
    return {bind.path: bind.writable for bind in host_binds(of, secret=HIDDEN)}


def test_whole_trees_and_single_files_are_shown() -> None:
    assert shown("fs.read:/srv/data/**", "fs.read:/home/ada/notes.txt") == {
        "/srv/data": False, "/home/ada/notes.txt": False,
    }  # fmt: skip


def test_patterns_that_a_mount_could_not_keep_to_are_not_shown() -> None:
    assert shown("fs.read:/srv/data/*", "fs.read:/srv/*/x", "fs.read:/srv/d*", "fs.read:/srv/**/x", "fs.read") == {}


def test_writing_is_for_trusted_agents() -> None:
    assert shown("fs.write:/srv/out/**") == {}
    assert shown("fs.read:/srv/out/**", "fs.write:/srv/out/**") == {"/srv/out": False}
    assert shown("fs.write:/srv/out/**", trust=TrustLevel.TRUSTED) == {"/srv/out": True}


@pytest.mark.parametrize(
    "place",
    ["/", "/proc", "/proc/1", "/sys", "/dev", "/dev/shm", "/run", "/var/run/x", "/var/lib/agentd", "/var/lib",
     "/var/lib/agentd/x", "/workspace/x", "/opt/borough", "/usr/lib", "/etc", "/tmp", "/var"],
)  # fmt: skip
@pytest.mark.parametrize("trust", [TrustLevel.SANDBOXED, TrustLevel.PRIVILEGED])
def test_secret_places_and_the_boxs_own_are_never_shown(place: str, trust: TrustLevel) -> None:
    whole = "/**" if place == "/" else f"{place}/**"
    assert shown(f"fs.read:{whole}", f"fs.write:{whole}", trust=trust) == {}


def test_the_system_is_never_writable() -> None:
    assert shown("fs.write:/etc/app/**", "fs.write:/boot/**", "fs.write:/usr/x/**", trust=TrustLevel.PRIVILEGED) == {}
    both = shown("fs.read:/etc/app/**", "fs.write:/etc/app/**", trust=TrustLevel.PRIVILEGED)
    assert both == {"/etc/app": False}


def test_a_tree_with_a_prohibition_in_it_is_not_shown() -> None:
    tree = "fs.read:/srv/data/**"
    assert shown(tree, deny=("fs.read:/srv/data/secret/**",)) == {}
    assert shown(tree, deny=("fs.read:/srv/**",)) == {}
    assert shown(tree, deny=("fs.*",)) == {}
    assert shown(tree, deny=("fs.read:/home/**", "fs.write:/srv/data/**")) == {"/srv/data": False}
    out = ("fs.read:/srv/o/**", "fs.write:/srv/o/**")
    assert shown(*out, trust=TrustLevel.TRUSTED, deny=("fs.write:/srv/o/x",)) == {"/srv/o": False}


def test_what_is_readable_includes_the_system_that_every_box_sees() -> None:
    of = boxes.manifest(capabilities=("fs.read:/usr/share/dict/**", "fs.read:/srv/x/**", "fs.read:/etc/**"))
    assert readable(of, secret=HIDDEN) == ("/srv/x", "/usr/share/dict")


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "var", "lib", "agentd", "proc"]), max_size=4)


@given(_SEGMENTS)
def test_nothing_shown_holds_or_lies_in_a_secret_place(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    scope = "/**" if path == "/" else f"{path}/**"
    for found in shown(f"fs.read:{scope}", trust=TrustLevel.PRIVILEGED):
        assert not overlaps(found, (*HIDDEN, "/proc"))


# -- bubblewrap's arguments --------------------------------------------------------------------------------------------


def view(**more: object) -> BoxView:
    known: dict[str, object] = {
        "workspace": "/s/w", "skeleton": "/s/skeleton", "binds": (), "extra": (), "private": (),
        "tmp_bytes": 1000, "shm_bytes": 2000, "hostname": "box",
    }  # fmt: skip
    return BoxView(**{**known, **more})  # type: ignore[arg-type] # given by name


SYSTEM = System(links=[("/bin", "usr/bin")], folders=["/lib64"], etc=["/etc/ssl/certs"])


def pairs(words: list[str], option: str) -> list[tuple[str, str]]:
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == option]


def test_a_box_is_apart_in_every_respect() -> None:
    words = argv.arguments(SYSTEM, view())
    assert {f"--unshare-{kind}" for kind in ("user", "pid", "net", "ipc", "uts", "cgroup")} <= set(words)
    assert {"--disable-userns", "--die-with-parent", "--new-session", "--clearenv"} <= set(words)
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert "--share-net" not in words


def test_only_the_workspace_and_what_was_granted_is_writable() -> None:
    binds = [("/s/0", Bind(path="/srv/in")), ("/s/1", Bind(path="/srv/out", writable=True))]
    words = argv.arguments(SYSTEM, view(binds=binds))
    assert pairs(words, "--bind") == [("/s/1", "/srv/out"), ("/s/w", "/workspace")]
    assert ("/usr", "/usr") in pairs(words, "--ro-bind")
    assert ("/s/0", "/srv/in") in pairs(words, "--ro-bind")
    assert not {"--dev-bind", "--tmp-overlay", "--bind-try"} & set(words)


def test_everything_in_memory_has_a_size_or_is_closed_at_the_end() -> None:
    words = argv.arguments(SYSTEM, view())
    for at, word in enumerate(words):
        if word == "--tmpfs":
            assert words[at - 4] == "--size"
    assert words.index("--remount-ro") > max(at for at, word in enumerate(words) if word in ("--tmpfs", "--bind"))
    closed = [words[at + 1] for at, word in enumerate(words) if word == "--remount-ro"]
    assert closed == ["/dev", "/"]


def test_private_files_are_handed_over_as_data() -> None:
    words = argv.arguments(SYSTEM, view(private=[("/run/borough/nonce", "0400"), ("/run/borough/code", "0444")]))
    assert pairs(words, "--ro-bind-data") == [("13", "/run/borough/nonce"), ("14", "/run/borough/code")]
    assert words[words.index("--seccomp") + 1] == "12"


# -- limits ------------------------------------------------------------------------------------------------------------


def test_every_limit_has_a_default_and_the_manifest_lowers_or_raises_it() -> None:
    plain = dict(resource_limits(Resources(), BoxLimits(), Runtime.RUST, memory_group=True))
    assert plain[resource.RLIMIT_CORE] == 0
    assert plain[resource.RLIMIT_NPROC] == 256
    assert resource.RLIMIT_AS not in plain
    wanted = Resources(memory_limit_bytes=77, max_open_files=5, max_processes=6)
    asked = dict(resource_limits(wanted, BoxLimits(), Runtime.PYTHON, memory_group=False))
    assert (asked[resource.RLIMIT_AS], asked[resource.RLIMIT_NOFILE], asked[resource.RLIMIT_NPROC]) == (77, 5, 6)
    node = dict(resource_limits(wanted, BoxLimits(), Runtime.NODE, memory_group=False))
    assert node[resource.RLIMIT_DATA] == 77
    assert resource.RLIMIT_AS not in node


# -- Landlock ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 8))
def test_no_rule_names_a_right_that_the_version_does_not_know(version: int) -> None:
    head = landlock.attributes(version)
    handled = int.from_bytes(head[:8], "little")
    assert len(head) == (24 if version >= 6 else 8)
    binds = [(Bind(path="/srv/in"), True), (Bind(path="/srv/out", writable=True), True), (Bind(path="/f"), False)]
    rules = dict(landlock.rules(version, binds))
    assert all(rights and rights & ~handled == 0 for rights in rules.values())
    write, make = 1 << 1, 1 << 8
    assert [bool(rules[path] & write) for path in ("/usr", "/srv/in", "/srv/out", "/workspace")] == [
        False,
        False,
        True,
        True,
    ]
    assert not rules["/f"] & make
    assert not any(rights & (1 << 6 | 1 << 11) for rights in rules.values())  # nobody makes devices


# -- control groups ----------------------------------------------------------------------------------------------------


def tree_of_version_2(folder: Path, *, members: str = "") -> tuple[str, str]:
    """A tree of plain files, as version 2 would have it for a delegated group."""
    own = folder / "user.slice" / "agentd.service"
    own.mkdir(parents=True)
    for group in (folder, own):
        (group / "cgroup.procs").write_text(members)
        (group / "cgroup.subtree_control").write_text("")
    return f"30 25 0:26 / {folder} rw shared:9 - cgroup2 cgroup2 rw\n", "0::/user.slice/agentd.service\n"


def test_version_2_is_used_where_it_is_delegated(tmp_path: Path) -> None:
    mounts, own = tree_of_version_2(tmp_path)
    trees = cgroups.find_trees(mounts=mounts, own=own)
    groups = Groups(trees, "b")
    groups.make(Amounts(memory_bytes=1000, processes=20, cpu_weight=50))
    folder = tmp_path / "user.slice/agentd.service/borough-b"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "memory.max": "1000", "memory.oom.group": "1", "pids.max": "20", "cpu.weight": "50",
    }  # fmt: skip
    assert groups.members == [str(folder / "cgroup.procs")]
    assert groups.freeze(frozen=True)
    assert (folder / "cgroup.freeze").read_text() == "1"
    (folder / "memory.events").write_text("low 0\noom_kill 3\n")
    assert groups.out_of_memory_kills() == 3


def test_the_daemon_moves_into_a_leaf_so_that_its_group_may_have_children(tmp_path: Path) -> None:
    mounts, own = tree_of_version_2(tmp_path, members="4711\n")
    assert cgroups.find_trees(mounts=mounts, own=own, pid=lambda: 4711).version == 2
    assert (tmp_path / "user.slice/agentd.service/borough-daemon/cgroup.procs").read_text() == "4711"


def test_without_groups_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no control groups are mounted"):
        cgroups.find_trees(mounts="", own="0::/\n")
    mounts = f"30 25 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n"
    with pytest.raises(OSError, match="not delegated"):
        cgroups.find_trees(mounts=mounts, own="0::/nowhere\n")


def test_version_1_is_used_where_its_controllers_are(tmp_path: Path) -> None:
    mounts = ""
    for name in ("memory", "pids", "cpu", "freezer"):
        (tmp_path / name / "daemon").mkdir(parents=True)
        mounts += f"30 25 0:26 / {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
    own = "4:memory:/daemon\n3:pids:/daemon\n2:cpu:/daemon\n1:freezer:/\n0::/\n"
    groups = Groups(cgroups.find_trees(mounts=mounts, own=own), "b")
    groups.make(Amounts(memory_bytes=1000, processes=20, cpu_weight=50))
    assert (tmp_path / "memory/daemon/borough-b/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/daemon/borough-b/pids.max").read_text() == "20"
    assert (tmp_path / "cpu/daemon/borough-b/cpu.shares").read_text() == "512"
    assert groups.freeze(frozen=True)
    assert (tmp_path / "freezer/borough-b/freezer.state").read_text() == "FROZEN"


# -- programs ----------------------------------------------------------------------------------------------------------

HAS_ALL = Interpreters(sh="/bin/sh", python3="/usr/bin/python3", node="/usr/bin/node")


def line(program: Program) -> tuple[list[str], list[str]]:
    found = programs.started(boxes.manifest(program=program), HAS_ALL, hidden=HIDDEN)
    assert found is not None
    return list(found.argv), list(found.shown)


def test_what_is_started_follows_runtime_and_path() -> None:
    assert line(Program(command="/usr/bin/env", args=("-0",))) == (["/usr/bin/env", "-0"], [])
    assert line(Program(command="env")) == (["/usr/bin/env"], [])
    assert line(Program(command="./tool")) == (["/workspace/tool"], [])
    assert line(Program(command="/home/ada/tool")) == (["/home/ada/tool"], ["/home/ada/tool"])
    python = Program(runtime=Runtime.PYTHON, entrypoint="main.py", args=("x",))
    assert line(python) == (["/usr/bin/python3", "/workspace/main.py", "x"], [])
    node = Program(runtime=Runtime.NODE, entrypoint="/home/ada/a.js")
    assert line(node) == (["/usr/bin/node", "/home/ada/a.js"], ["/home/ada/a.js"])
    assert programs.started(boxes.manifest(), HAS_ALL, hidden=HIDDEN) is None


def test_nothing_of_the_daemons_own_is_started() -> None:
    with pytest.raises(Unavailable) as refused:
        line(Program(command="/var/lib/agentd/tool"))
    assert refused.value.code == "start_failed"


def test_a_runtime_that_is_not_there_is_named() -> None:
    with pytest.raises(Unavailable) as missing:
        programs.runtime(Interpreters(sh="/bin/sh", python3=None, node=None), "python3")
    assert missing.value.code == "runtime_missing"
    assert "choose from sh" in str(missing.value.resolution)


def test_interpreters_are_those_that_a_box_can_see() -> None:
    for path in (skeleton.interpreters().sh, skeleton.interpreters().python3, skeleton.interpreters().node):
        assert path is None or os.path.realpath(path).startswith("/usr/")


def test_the_environment_is_small_and_ours_wins() -> None:
    of = boxes.manifest(program=Program(command="x", env={"A": "1", "SCARAB_TASK": "forged"}))
    env = plans.environment(of, {"SCARAB_TASK": "real"}, sdk=True)
    assert (env["A"], env["SCARAB_TASK"], env["PYTHONPATH"]) == ("1", "real", "/opt/borough")
    assert "HTTP_PROXY" not in env
    out = boxes.manifest(network=Network(policy=NetworkPolicy.LOCAL), trust=TrustLevel.TRUSTED)
    assert plans.environment(out, {}, sdk=False)["https_proxy"] == "http://127.0.0.1:3128"


def test_agents_belong_to_different_users_of_the_host() -> None:
    found = {plans.identity_of(boxes.agent())[0] for _ in range(200)}
    assert len(found) > 195
    assert all(1_879_048_192 <= uid < 1_879_048_192 + 2**26 for uid in found)
