"""A source tree as values: which Python files there are, and what each says. Reads files, writes none."""

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NOT_SOURCES = frozenset({"__pycache__", "node_modules", "build", "dist"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One file."""

    path: str
    """Relative to where the reader was started."""
    name: str
    """As it is imported, as far as its packages tell."""
    text: str
    tree: ast.Module | None
    """``None`` when it is no valid Python."""

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.text.splitlines())


Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(below: Path) -> list[Path]:
    """Return the Python files of a tree (or the one file), sorted; hidden and generated folders are left out."""
    if below.is_file():
        return [below]
    found = []
    for folder, folders, files in os.walk(below):
        folders[:] = [name for name in folders if name not in _NOT_SOURCES and not name.startswith(".")]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def read_module(file: Path, *, start: Path) -> Module:
    """Return one file as a module."""
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        tree = None
    return Module(path=os.path.relpath(file, start), name=_module_name(file), text=text, tree=tree)


def functions(module: Module) -> Iterator[Function]:
    """Yield every function and method."""
    for node in ast.walk(module.tree or ast.Module(body=[], type_ignores=[])):
        if isinstance(node, Function):
            yield node


def imported(module: Module) -> set[str]:
    """Return the dotted names that ``module`` imports when it is loaded: whole modules and members of them."""
    names: set[str] = set()
    for node in _run_on_import(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names - {""}


def _run_on_import(tree: ast.AST | None) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported: not those inside functions."""
    waiting = [tree] if tree is not None else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, Function)]


def _base(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    if not module.path.endswith("__init__.py"):
        package = package[:-1]
    kept = package[: len(package) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _module_name(file: Path) -> str:
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.resolve().parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts) or file.stem
