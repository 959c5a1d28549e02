"""The questions that the reader can answer about a source tree. Pure functions of its modules."""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from borough.examples.sources import Module, functions, imported

_SHOWN = 25
_HEADER_LINES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found."""

    summary: str
    """One sentence."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing that can be asked."""

    title: str
    pattern: str
    """What a request must say, as a regular expression, any case."""
    answer: Callable[[Sequence[Module]], Answer]

    def is_asked(self, text: str) -> bool:
        """Tell whether ``text`` asks this."""
        return re.search(self.pattern, text, re.IGNORECASE) is not None


def largest_modules(modules: Sequence[Module]) -> Answer:
    """Rank modules by lines."""
    ranked = sorted(modules, key=lambda module: (-module.lines, module.path))
    total = sum(module.lines for module in modules)
    first = f"; the largest is {ranked[0].path} with {ranked[0].lines}" if ranked else ""
    return Answer(
        summary=f"{len(modules)} modules have {total} lines{first}.",
        columns=("module", "lines", "share"),
        rows=tuple((one.path, str(one.lines), f"{one.lines / max(total, 1):.1%}") for one in ranked[:_SHOWN]),
    )


def functions_per_module(modules: Sequence[Module]) -> Answer:
    """Count functions and their mean length."""
    rows = []
    for module in modules:
        lengths = [_length(function) for function in functions(module)]
        if lengths:
            rows.append((module.path, len(lengths), sum(lengths) / len(lengths)))
    rows.sort(key=lambda row: (-row[1], row[0]))
    return Answer(
        summary=f"{sum(row[1] for row in rows)} functions in {len(rows)} of {len(modules)} modules.",
        columns=("module", "functions", "mean lines"),
        rows=tuple((path, str(count), f"{mean:.1f}") for path, count, mean in rows),
    )


def longest_functions(modules: Sequence[Module]) -> Answer:
    """Rank functions by lines."""
    found = [(_length(one), f"{module.path}:{one.lineno}", one.name) for module in modules for one in functions(module)]
    found.sort(key=lambda row: (-row[0], row[1]))
    longest = f"the longest is {found[0][2]} with {found[0][0]} lines" if found else "there is none"
    return Answer(
        summary=f"{len(found)} functions; {longest}.",
        columns=("function", "where", "lines"),
        rows=tuple((name, where, str(length)) for length, where, name in found[:_SHOWN]),
    )


def todo_inventory(modules: Sequence[Module]) -> Answer:
    """List comments that promise work."""
    rows = [
        (f"{module.path}:{line}", text)
        for module in modules
        for line, text in _comments(module)
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    ]
    return Answer(
        summary=f"{len(rows)} open notes in comments of {len(modules)} modules.",
        columns=("where", "note"),
        rows=tuple(rows),
    )


def test_names(modules: Sequence[Module]) -> Answer:
    """List tests, as the sentences that their names are."""
    rows = [
        (one.name.removeprefix("test_").replace("_", " "), f"{module.path}:{one.lineno}")
        for module in modules
        for one in functions(module)
        if one.name.startswith("test_")
    ]
    files = {where.partition(":")[0] for _, where in rows}
    return Answer(summary=f"{len(rows)} tests in {len(files)} files.", columns=("test", "where"), rows=tuple(rows))


def import_cycles(modules: Sequence[Module]) -> Answer:
    """Find groups of modules that need each other to be imported."""
    names = {module.name for module in modules}
    needs = {module.name: sorted((imported(module) & names) - {module.name}) for module in modules}
    cycles = [sorted(group) for group in _knots(needs) if len(group) > 1]
    edges = sum(len(targets) for targets in needs.values())
    return Answer(
        summary=f"{len(cycles)} import cycles among {len(modules)} modules with {edges} imports of each other.",
        columns=("cycle", "modules"),
        rows=tuple((" ↔ ".join(group), str(len(group))) for group in sorted(cycles)),
    )


def licence_headers(modules: Sequence[Module]) -> Answer:
    """List modules that do not name their licence at the top."""
    header = re.compile(r"SPDX-License-Identifier|licen[cs]ed? under|copyright", re.IGNORECASE)
    without = [module for module in modules if not header.search("\n".join(module.text.splitlines()[:_HEADER_LINES]))]
    return Answer(
        summary=f"{len(modules) - len(without)} of {len(modules)} modules name a licence at their top.",
        columns=("module without a licence header", "lines"),
        rows=tuple((module.path, str(module.lines)) for module in without),
    )


def missing_docstrings(modules: Sequence[Module]) -> Answer:
    """List public modules, classes and functions that say nothing about themselves."""
    rows, total = [], 0
    for module in modules:
        for node, name in _public(module):
            total += 1
            if ast.get_docstring(node) is None:
                rows.append((name, f"{module.path}:{getattr(node, 'lineno', 1)}"))
    return Answer(
        summary=f"{total - len(rows)} of {total} public modules, classes and functions have a docstring.",
        columns=("without a docstring", "where"),
        rows=tuple(rows),
    )


def outside_imports(modules: Sequence[Module]) -> Answer:
    """Count what is imported from neither the standard library nor the tree itself."""
    own = {module.name.partition(".")[0] for module in modules}
    users: dict[str, set[str]] = {}
    for module in modules:
        for top in {name.partition(".")[0] for name in imported(module)} - own - sys.stdlib_module_names:
            users.setdefault(top, set()).add(module.path)
    ranked = sorted(users.items(), key=lambda item: (-len(item[1]), item[0]))
    return Answer(
        summary=f"{len(ranked)} packages from outside are used.",
        columns=("package", "used by", "modules"),
        rows=tuple((name, str(len(paths)), ", ".join(sorted(paths))) for name, paths in ranked),
    )


QUESTIONS: tuple[Question, ...] = (
    Question(title="Largest modules", pattern=r"largest (modules|files)", answer=largest_modules),
    Question(title="Longest functions", pattern=r"longest functions", answer=longest_functions),
    Question(title="Functions per module", pattern=r"functions per module", answer=functions_per_module),
    Question(title="TODO inventory", pattern=r"\btodos?\b|\bfixmes?\b", answer=todo_inventory),
    Question(title="Test names", pattern=r"test names|names? of (the |all )?tests", answer=test_names),
    Question(title="Import cycles", pattern=r"import cycles|circular imports", answer=import_cycles),
    Question(title="Licence headers", pattern=r"licen[cs]e headers?", answer=licence_headers),
    Question(title="Missing docstrings", pattern=r"docstrings?", answer=missing_docstrings),
    Question(title="Imports from outside", pattern=r"third[- ]party|outside imports|imports from outside",
             answer=outside_imports),
)  # fmt: skip


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _comments(module: Module) -> Iterator[tuple[int, str]]:
    if module.tree is None:
        return
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ").rstrip()


def _public(module: Module) -> Iterator[tuple[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    if module.tree is None:
        return
    yield module.tree, module.name
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node, f"{module.name}.{node.name}"


def _knots(needs: dict[str, list[str]]) -> list[set[str]]:
    """Return the strongly connected groups of a graph (Tarjan's algorithm, with a stack of its own)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    groups: list[set[str]] = []
    for root, first in needs.items():
        work = [] if root in order else [(root, iter(first))]
        while work:
            node, targets = work[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                path.append(node)
                on_path.add(node)
            deeper = next((target for target in targets if target not in order or target in on_path), None)
            if deeper is not None and deeper in order:
                low[node] = min(low[node], order[deeper])
            elif deeper is not None:
                work.append((deeper, iter(needs[deeper])))
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    groups.append(_cut(path, on_path, node))
    return groups


def _cut(path: list[str], on_path: set[str], node: str) -> set[str]:
    group = set(path[path.index(node) :])
    del path[path.index(node) :]
    on_path -= group
    return group
