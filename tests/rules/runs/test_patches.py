"""Patches: what ``git apply`` makes of them is what the run left behind."""

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borough.runs.patches import EXECUTABLE, LINK, REGULAR, FileImage, Tree, changes, patch
from borough.runs.runs import ChangeKind
from tests.conftest import need

texts = st.text(st.sampled_from("ab\n\r\u2028 é"), max_size=30)
names = st.sampled_from(["a", "b/c", "with space", 'quo"te', "tab\there", "umläut", "z"])
trees = st.dictionaries(names, st.tuples(texts, st.sampled_from([REGULAR, EXECUTABLE])), max_size=5)


def image(text: str | None, mode: str = REGULAR, *, data: bytes = b"") -> FileImage:
    return FileImage(digest=sha256(data if text is None else text.encode()).hexdigest(), mode=mode, text=text)


def tree(files: dict[str, tuple[str, str]]) -> Tree:
    return {name: image(text, mode) for name, (text, mode) in files.items()}


def lay(root: Path, files: dict[str, tuple[str, str]]) -> None:
    for name, (text, mode) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        path.chmod(0o755 if mode == EXECUTABLE else 0o644)


def found(root: Path) -> dict[str, tuple[str, str]]:
    def mode(path: Path) -> str:
        return EXECUTABLE if path.stat().st_mode & 0o100 else REGULAR

    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.read_bytes().decode(), mode(path)) for path in files}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, trees)
def test_git_makes_the_same_of_a_patch(
    tmp_path: Path, before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]
) -> None:
    need(shutil.which("git"), "git", "apt-get install git")
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    lay(root, before)
    text = patch(tree(before), tree(after))
    if text:
        applied = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", "-"],
            cwd=root, input=text.encode(), capture_output=True, check=False,
            env={"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tmp_path)},
        )  # fmt: skip
        assert applied.returncode == 0, (text, applied.stderr)
    assert found(root) == after


def test_what_is_no_text_is_named_only() -> None:
    before, after = {"logo": image(None, data=b"\0one")}, {"logo": image(None, data=b"\0two"), "new": image("x")}
    assert [(each.path, each.kind) for each in changes(before, after)] == [
        ("logo", ChangeKind.BINARY), ("new", ChangeKind.ADDED)
    ]  # fmt: skip
    assert "Binary files a/logo and b/logo differ" in patch(before, after)


def test_a_link_is_written_with_where_it_leads() -> None:
    assert "new file mode 120000" in patch({}, {"here": image("there", LINK)})


@pytest.mark.parametrize("same", [{}, {"a": image("text")}])
def test_what_is_the_same_is_no_change(same: Tree) -> None:
    assert (changes(same, same), patch(same, same)) == ((), "")
