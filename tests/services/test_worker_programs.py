"""What a worker's box has to show so that its agent's program runs, found on files as they lie about on machines."""

import os
from pathlib import Path

import pytest

from borough.adapters.engines.bubblewrap_workers import following, showing


def installed(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def needed(home: Path, *argv: str, never: tuple[str, ...] = (), trusted: bool = True) -> following.Followed:
    search = f"{home}/.local/bin:{home}/node/bin:/usr/bin:/bin"
    return following.program(argv, search=search, home=str(home), never=never, trusted=trusted)


def test_a_program_of_node_is_shown_with_its_packages_and_the_node_that_runs_it(tmp_path: Path) -> None:
    script = installed(tmp_path / "npm/lib/node_modules/@maker/agent/cli.js", "#!/usr/bin/env -S node\n")
    installed(tmp_path / "node/bin/node", "\x7fELF")
    (tmp_path / ".local/bin").mkdir(parents=True)
    (tmp_path / ".local/bin/agent").symlink_to("../../npm/lib/node_modules/@maker/agent/cli.js")
    found = needed(tmp_path, "agent", "--print")
    assert found.links[0] == (f"{tmp_path}/.local/bin/agent", "../../npm/lib/node_modules/@maker/agent/cli.js")
    assert {str(script.parents[2]), f"{tmp_path}/node/bin"} <= set(found.paths)
    assert str(tmp_path) not in found.paths


def test_a_program_of_an_environment_is_shown_with_it_and_the_python_that_it_was_made_from(tmp_path: Path) -> None:
    base = installed(tmp_path / "pythons/3.12/bin/python3.12", "\x7fELF")
    venv = tmp_path / "tools/agent"
    installed(venv / "bin/agent", f"#!{venv}/bin/python\n")
    (venv / "bin/python").symlink_to(base)
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\nversion = 3.12\n")
    (tmp_path / ".local/bin").mkdir(parents=True)
    (tmp_path / ".local/bin/agent").symlink_to(venv / "bin/agent")
    found = needed(tmp_path, "agent")
    assert {str(venv), str(base.parents[1])} <= set(found.paths)
    assert (f"{venv}/bin/python", str(base)) in found.links


def test_a_command_of_the_settings_shows_what_it_names_and_a_callers_own_does_not(tmp_path: Path) -> None:
    script = tmp_path / "agents/mine.py"
    script.parent.mkdir()
    script.write_text("print()")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id").write_text("a key")
    told = needed(tmp_path, "sh", str(script), f"--key={tmp_path}/.ssh/id").paths
    assert str(script.parent) in told, "a script with what it imports"
    assert f"{tmp_path}/.ssh/id" in told
    assert f"{tmp_path}/.ssh" not in told, "a file alone"
    assert needed(tmp_path, "cat", f"{tmp_path}/.ssh/id", trusted=False).paths == needed(tmp_path, "cat").paths
    assert needed(tmp_path, str(script), trusted=False).paths == []


def test_a_program_in_the_home_itself_does_not_show_the_home(tmp_path: Path) -> None:
    agent = installed(tmp_path / "agent")
    assert needed(tmp_path, str(agent)).paths[0] == str(agent)


def test_what_an_agent_wrote_names_nothing(tmp_path: Path) -> None:
    secret = installed(tmp_path / ".ssh/id", "a key")
    project = str(tmp_path / "project")
    agent = installed(tmp_path / "project/agent", f"#!{secret}\n")
    (tmp_path / "project/link").symlink_to(secret)
    installed(tmp_path / "project/venv/bin/tool")
    (tmp_path / "project/venv/pyvenv.cfg").write_text(f"home = {tmp_path}/.ssh/bin\n")
    for argv in ([str(agent)], ["sh", f"{project}/link"], [f"{project}/venv/bin/tool"]):
        told = needed(tmp_path, *argv, never=(project,)).paths
        assert not [path for path in told if ".ssh" in path], argv
    assert str(secret.parent) in needed(tmp_path, str(agent)).paths, "a script that nobody but the user can write does"


def test_links_are_followed_one_by_one_and_never_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("c/../d")
    (tmp_path / "d").mkdir()
    (tmp_path / "c").mkdir()
    real, links = following.follow(f"{tmp_path}/a/./file")
    assert real == os.path.realpath(tmp_path / "a/file")
    assert links == [(f"{tmp_path}/a", "b"), (f"{tmp_path}/b", "c/../d")]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="too many links"):
        following.follow(f"{tmp_path}/round")
    assert following.follow(f"{tmp_path}/a", never=[str(tmp_path)]) == (None, [])


def test_of_etc_what_not_everybody_may_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("")
    (tmp_path / "passwd").chmod(0o644)
    (tmp_path / "shadow").write_text("")
    (tmp_path / "shadow").chmod(0o640)
    (tmp_path / "ssl/private").mkdir(parents=True)
    (tmp_path / "ssl/private").chmod(0o700)
    (tmp_path / "ssl/private/key").write_text("")
    (tmp_path / "link").symlink_to("shadow")
    tmp_path.joinpath("ssl").chmod(0o755)
    assert showing.closed(str(tmp_path)) == [(f"{tmp_path}/shadow", False), (f"{tmp_path}/ssl/private", True)]


def test_the_repository_of_a_work_tree_is_found_only_if_it_names_the_tree(tmp_path: Path) -> None:
    tree, main = tmp_path / "tree", tmp_path / "main/.git"
    (main / "worktrees/tree").mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {main}/worktrees/tree\n")
    (main / "worktrees/tree/commondir").write_text("../..\n")
    (main / "worktrees/tree/gitdir").write_text(f"{tmp_path}/another/.git\n")
    assert showing.repositories([str(tree), str(tmp_path)]) == []
    (main / "worktrees/tree/gitdir").write_text(f"{tree}/.git\n")
    assert showing.repositories([str(tree)]) == [str(main)]
