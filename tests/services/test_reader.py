"""The example agent, as a process on real files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from borough.examples.demo_tasks import DEMO_TASKS
from borough.examples.reader import understand
from borough.worker.prompt import task_closing, task_opening

ROOT = Path(__file__).parents[2]


def ask(text: str, cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TINYTOWN_TASK_ID"}
    argv = [sys.executable, "-m", "borough.examples.reader", *more]
    return subprocess.run(argv, input=text, cwd=cwd, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("# SPDX-License-Identifier: Apache-2.0\n")
    (package / "one.py").write_text("from pack import two\n\ndef long():\n    x = 1\n    y = 2\n    return x + y\n")
    (package / "two.py").write_text(
        "from . import three\nimport requests\n# TODO: mend this\ntext = '# TODO: not this'\n"
    )
    (package / "three.py").write_text('"""Three."""\nimport os, pack.one\n\ndef late():\n    import pack.four\n')
    (package / "four.py").write_text("import pack.three\n\nclass Silent: ...\n")
    (package / "test_it.py").write_text(
        "async def test_water_is_wet(): ...\nclass T:\n def test_sky_is_blue(self): ...\n"
    )
    (package / "broken.py").write_text("def (:\n")
    return tmp_path


def report(tree: Path, text: str) -> str:
    done = ask(text, tree, "--out", "out")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("report: ")]
    content = (tree / line.removeprefix("report: ")).read_text()
    assert done.stdout.splitlines()[-1] in content
    return content


def test_import_cycles_are_those_of_loading(tree: Path) -> None:
    content = report(tree, "Find import cycles in `pack`.")
    assert "1 import cycles among 7 modules" in content
    assert "pack.one ↔ pack.three ↔ pack.two" in content


def test_todos_are_those_in_comments(tree: Path) -> None:
    content = report(tree, "Make a TODO inventory of `pack`.")
    assert "| pack/two.py:3 | TODO: mend this |" in content
    assert "not this" not in content


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("the largest modules, please", "| pack/one.py | 6 | "),
        ("longest functions in `pack`", "| long | pack/one.py:3 | 4 |"),
        ("functions per module in `pack`", "| pack/one.py | 1 | 4.0 |"),
        ("test names in `pack`", "| water is wet | pack/test_it.py:1 |"),
        ("licence headers in `pack`", "| pack/one.py | 6 |"),
        ("missing docstrings in `pack`", "| pack.four.Silent | pack/four.py:3 |"),
        ("third-party packages in `pack`", "| requests | 1 | pack/two.py |"),
    ],
)
def test_each_question_is_answered(tree: Path, text: str, row: str) -> None:
    content = report(tree, text)
    assert row in content
    assert f"> {text}" in content


def test_a_file_that_is_no_python_is_named(tree: Path) -> None:
    assert "Not valid Python, so counted by lines only: pack/broken.py" in report(tree, "largest modules in `pack`")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Paint the town red.", "cannot do 'Paint the town red.'"),
        ("", "cannot do 'nothing'"),
        ("largest modules in `nowhere`", "there is no nowhere below"),
        ("largest modules in `../../etc`", "is outside"),
    ],
)
def test_what_it_cannot_do_it_says_in_one_line(tree: Path, text: str, why: str) -> None:
    refused = ask(text, tree)
    assert refused.returncode == 1
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tree / "reports").exists()


def test_a_workers_prompt_is_taken_apart(tree: Path) -> None:
    task = "largest modules in `pack`"
    prompt = f"test names are elsewhere\n{task_opening('7')}\n{task}\n{task_closing('7')}\nTODO: finish\n"
    asked = understand(prompt, start=tree)
    assert (asked.text, asked.question.title, asked.path) == (task, "Largest modules", tree / "pack")


def test_the_twenty_demonstration_tasks_differ_and_are_understood() -> None:
    asked = [understand(text, start=ROOT) for text in DEMO_TASKS]
    assert len({(one.question.title, one.path) for one in asked}) == 20
    assert len({one.question.title for one in asked}) == 9
    assert all(one.path != ROOT for one in asked)
