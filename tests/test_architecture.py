"""The house is what docs/architecture.md says it is, and its walls hold."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "borough"
CACHE = ROOT / ".import_linter_cache"
MAX_MODULE_LINES = 400
"""Lines that hold code: blank lines, comments and docstrings are not counted."""
MAX_FUNCTION_LINES = 60

STARTS_PROCESSES = {
    "create_subprocess_exec",
    "create_subprocess_shell",
    "fork",
    "forkpty",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "spawnv",
    "spawnve",
    "subprocess_exec",
    "subprocess_shell",
    "system",
}
MAKES_BOXES = (
    "adapters/engines/bubblewrap/keeper/",
    "adapters/engines/bubblewrap_machines/door.py",
    "adapters/engines/bubblewrap_machines/doorman.py",
    "adapters/engines/bubblewrap_machines/idmapped.py",
    "adapters/engines/bubblewrap_machines/nursery.py",
    "adapters/engines/bubblewrap_machines/starting.py",
    "adapters/engines/bubblewrap_machines/warden.py",
)
"""These run in processes of their own, and their children must be confined between fork and exec."""
BECOMES_ANOTHER = {"execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"}
"""A command may end by becoming another program; nothing else may."""


def lint_imports(tree: Path, *only: str) -> subprocess.CompletedProcess[str]:
    """Check the contracts of ``tree``, which holds a ``pyproject.toml`` and ``src``: all, or only those named."""
    chosen = [word for contract in only for word in ("--contract", contract)]
    return subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports_command as main; main()",
         "--cache-dir", str(CACHE), "--no-logo", "--config", str(tree / "pyproject.toml"), *chosen],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def own_python() -> list[Path]:
    return [path for room in ("src", "tests", "bench") for path in sorted((ROOT / room).rglob("*.py"))]


# -- imports -----------------------------------------------------------------------------------------------------------


def test_every_room_imports_only_what_it_may() -> None:
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", checked.stdout)


@dataclass(frozen=True, kw_only=True)
class Trespass:
    contract: str
    module: str
    """Where the wrong line is planted; made if it is not there."""
    line: str


TRESPASSES = [
    Trespass(contract="layers", module="core/clock.py", line="import borough.auth.scopes"),
    Trespass(contract="layers", module="auth/scopes.py", line="import borough.town.tasks"),
    Trespass(contract="layers", module="town/tasks.py", line="import borough.http.operations"),
    Trespass(contract="layers", module="http/operations.py", line="import borough.adapters.valkey"),
    Trespass(contract="layers", module="adapters/valkey/planted.py", line="import borough.config"),
    Trespass(contract="layers", module="controllers/planted.py", line="import borough.client"),
    Trespass(contract="layers", module="unplanned/__init__.py", line="import borough.core"),
    Trespass(contract="town-floors", module="town/tasks.py", line="import borough.town.ports"),
    Trespass(contract="town-floors", module="town/ports/tasks.py", line="import borough.town.services"),
    Trespass(contract="fleet-floors", module="fleet/ports/fleet.py", line="import borough.fleet.services.hosts"),
    Trespass(contract="layers", module="town/tasks.py", line="import borough.runs.states"),
    Trespass(contract="runs-floors", module="runs/ports.py", line="import borough.runs.services.runs"),
    Trespass(contract="pure-rules", module="runs/patches.py", line="import pathlib"),
    Trespass(contract="pools-floors", module="pools/scaling.py", line="import borough.pools.ports"),
    Trespass(contract="layers", module="fleet/hosts.py", line="import borough.pools.pools"),
    Trespass(contract="pure-rules", module="pools/scaling.py", line="import asyncio"),
    Trespass(contract="pure-rules", module="town/tasks.py", line="import asyncio"),
    Trespass(contract="pure-rules", module="fleet/vms.py", line="import asyncio"),
    Trespass(contract="pure-rules", module="town/agents.py", line="import logging"),
    Trespass(contract="pure-rules", module="town/scaling.py", line="import uuid"),
    Trespass(contract="pure-rules", module="auth/principals.py", line="from time import time"),
    Trespass(contract="pure-rules", module="core/paging.py", line="import os"),
    Trespass(contract="one-door-to-processes", module="cli/planted.py", line="import subprocess"),
    Trespass(contract="one-door-to-valkey", module="http/town/planted.py", line="import valkey"),
    Trespass(contract="one-door-to-sqlite", module="bootstrap/planted.py", line="import apsw"),
    Trespass(contract="one-door-to-sqlite", module="adapters/sql/planted.py", line="import sqlite3"),
    Trespass(contract="governance-floors", module="governance/trust.py", line="import borough.governance.ports.tools"),
    Trespass(
        contract="governance-floors", module="governance/ports/tools.py", line="import borough.governance.services.gate"
    ),
    Trespass(contract="pure-rules", module="governance/lifecycle.py", line="from datetime import UTC; import time"),
    Trespass(contract="agents-need-nothing", module="agent/frames.py", line="import borough.core.clock"),
    Trespass(contract="agents-need-nothing", module="agent/exchanges.py", line="import msgspec"),
    Trespass(contract="clients-speak-http", module="client/planted.py", line="import borough.adapters.valkey"),
    Trespass(contract="clients-speak-http", module="worker/planted.py", line="import borough.adapters.valkey"),
    Trespass(contract="commands-speak-http", module="cli/planted.py", line="import borough.adapters.valkey"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tree that may be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(SOURCE, tmp_path / "src" / "borough", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("trespass", TRESPASSES, ids=lambda t: f"{t.module}: {t.line}")
def test_a_wrong_import_is_found(copy: Path, trespass: Trespass) -> None:
    victim = copy / "src" / "borough" / trespass.module
    victim.parent.mkdir(exist_ok=True)
    before = victim.read_text() if victim.exists() else ""
    victim.write_text(f"{before}\n{trespass.line}\n")
    checked = lint_imports(copy, trespass.contract)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert f"{contract_name(trespass.contract)} BROKEN" in re.sub(r"\s+", " ", checked.stdout)


def contracts() -> list[dict[str, str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(settings["tool"]["importlinter"]["contracts"])


def contract_name(wanted: str) -> str:
    return next(contract["name"] for contract in contracts() if contract["id"] == wanted)


def test_every_contract_has_a_trespass() -> None:
    assert {contract["id"] for contract in contracts()} == {trespass.contract for trespass in TRESPASSES}


# -- the plan ----------------------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `([^`]+/)` \| (.+) \|$", re.MULTILINE)
NOT_OURS = {"__pycache__", "node_modules", "static"}


def folders() -> Iterator[str]:
    """Every folder of the tree that holds a file of ours."""
    for room in ("src/borough", "tests", "bench", "docs", "packaging", ".ci", "web"):
        for where, children, files in os.walk(ROOT / room):
            children[:] = [child for child in children if child not in NOT_OURS and not child.endswith(".egg-info")]
            if files:
                yield Path(where).relative_to(ROOT).as_posix() + "/"


def test_the_plan_lists_every_folder_and_no_other() -> None:
    rows = ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    planned = [folder for folder, _ in rows]
    assert len(planned) == len(set(planned)), "a folder is listed twice"
    assert set(planned) == set(folders())


def test_the_plan_says_one_sentence_of_each_folder() -> None:
    for folder, sentence in ROW.findall((ROOT / "docs" / "architecture.md").read_text()):
        assert len(sentence) > 15, folder
        assert re.search(r"[^.]\.$", sentence), f"{folder} has no sentence"


def test_every_package_has_a_door_plate() -> None:
    for package in [*SOURCE.rglob("__init__.py"), ROOT / "bench" / "__init__.py"]:
        assert ast.get_docstring(ast.parse(package.read_text())), f"{shown(package)} does not say what belongs there"


def test_every_folder_of_code_is_a_package() -> None:
    for module in modules():
        assert (module.parent / "__init__.py").exists(), shown(module.parent)


# -- form --------------------------------------------------------------------------------------------------------------


def lines_of_code(source: str, tree: ast.AST) -> set[int]:
    """Return the numbers of the lines that hold code."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return held


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_a_module_is_one_concept(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    held = lines_of_code(source, tree)
    assert len(held) <= MAX_MODULE_LINES, f"{shown(path)} holds {len(held)} lines of code"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(held & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            assert length <= MAX_FUNCTION_LINES, f"{shown(path)}: {node.name} is {length} lines long"


@pytest.mark.parametrize("path", modules(), ids=shown)
def test_nothing_prints_runs_a_shell_or_starts_processes_but_what_is_there_for_it(path: Path) -> None:
    room = path.relative_to(SOURCE).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id == "print" and not room.startswith("cli/")), (
                f"{shown(path)}:{node.lineno} prints"
            )
            assert not any(
                word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            ), f"{shown(path)}:{node.lineno} uses a shell"
        if isinstance(node, ast.Attribute) and room != "adapters/process.py" and not room.startswith(MAKES_BOXES):
            forbidden = STARTS_PROCESSES if room.startswith("cli/") else STARTS_PROCESSES | BECOMES_ANOTHER
            assert not (node.attr in forbidden and is_module(node.value)), (
                f"{shown(path)}:{node.lineno} starts a process with {node.attr}; adapters/process.py is there for that"
            )
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "asyncio") and room != "adapters/process.py":
            assert not STARTS_PROCESSES & {name.name for name in node.names}, f"{shown(path)}:{node.lineno}"


def is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("os", "asyncio", "loop")


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SILENCED = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?P<codes>:\s*[A-Z0-9, ]+|\[[a-z, -]+\])?(?P<reason>.*)$")


@pytest.mark.parametrize("path", own_python(), ids=shown)
def test_nothing_is_left_for_later_and_no_check_is_silenced_without_a_reason(path: Path) -> None:
    for number, comment in comments(path):
        assert not LATER.search(comment), f"{shown(path)}:{number} leaves something for later"
        if silenced := SILENCED.search(comment):
            assert silenced["codes"], f"{shown(path)}:{number} silences everything"
            assert len(re.sub(r"\W", "", silenced["reason"])) >= 4, f"{shown(path)}:{number} gives no reason"
