"""What the pages say is so: links resolve, commands exist, tables agree with the code."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest
import yaml

from borough.config import governance, sections
from borough.fleet import vms
from borough.pools import pools
from borough.runs import states as run_states
from borough.town import agents, tasks

ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv" / "bin"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
GROUPS = {
    "tt": {"backlog", "task", "auth", "dead", "host", "env", "vm", "image", "deploy"},
    "ash": {"agent", "audit", "tools"},
}
"""Commands that have commands of their own."""


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the names under which the page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{shown(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(linked), f"{shown(page)} links to {target}; that page has no such heading"


def code(page: Path) -> Iterator[str]:
    """Yield every line of the page's shell blocks and every inline piece of code."""
    text = page.read_text()
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield from (line.strip() for line in re.sub(r"\\\n", " ", block).splitlines())
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


OFFERED = re.compile(r"""(?<=[`'"])(?:tt|borough|ash) [a-z-]+(?: [a-z-]+)?(?=[ `'"])""")
"""A command that the dashboard offers to copy."""


def offered() -> Iterator[tuple[Path, str]]:
    """Yield the commands that stand in the dashboard's sources."""
    for source in sorted((ROOT / "web" / "src").rglob("*.ts*")):
        yield from ((source, command) for command in OFFERED.findall(source.read_text()))


def shell_blocks(page: Path) -> list[tuple[str, str]]:
    """Return the page's shell blocks, each with the marker on the line before it ('' without one)."""
    found = re.findall(r"^(?:<!-- ([^\n]+) -->\n)? *```bash\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(marker, script) for marker, script in found]


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_shell_block_is_run_or_says_why_not(page: Path) -> None:
    for marker, script in shell_blocks(page):
        kind, _, said = marker.partition(" by " if marker.startswith("run by") else ": ")
        assert kind in ("run", "not run"), f"{shown(page)}: say `run`, `run by TEST` or `not run: WHY` above {script!r}"
        assert kind == "run" or len(said) > 10, f"{shown(page)} does not say why it does not run {script!r}"
        for test in re.findall(r"tests/[\w/]+\.py", said):
            assert (ROOT / test).exists(), f"{shown(page)} names {test}, which is not there"


def test_what_is_written_for_models_leads_to_pages_that_exist() -> None:
    text = (ROOT / "llms.txt").read_text()
    assert text.startswith("# Borough\n\n> ")
    targets = LINK.findall(text)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def commands() -> dict[tuple[str, ...], str]:
    """Return the commands that the pages name, each with the page that names it."""
    found: dict[tuple[str, ...], str] = {}
    on_pages = ((page, line) for page in PAGES for line in code(page) if not line.startswith("ash "))
    for where, line in (*on_pages, *offered()):
        words = line.split("#")[0].split()
        if len(words) < 2 or words[0] not in ("tt", "borough", "townhall", "make", "ash"):
            continue
        depth = 2 if words[1] in GROUPS.get(words[0], ()) else 1
        named = [word for word in words[1 : 1 + depth] if re.fullmatch(r"[a-z][a-z-]*", word)]
        if named:
            found.setdefault((words[0], *named), shown(where))
    return found


OF_PROGRAMS = {command: page for command, page in commands().items() if command[0] != "make"}


@pytest.mark.parametrize("command", sorted(OF_PROGRAMS), ids=" ".join)
def test_a_command_that_is_named_exists(command: tuple[str, ...]) -> None:
    asked = subprocess.run(
        [BIN / command[0], *command[1:], "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, f"{OF_PROGRAMS[command]} names {' '.join(command)}: {asked.stderr}"
    assert "usage" in asked.stdout.lower()


def test_targets_of_make_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command[1] for command in commands() if command[0] == "make"}
    assert {"demo", "test", "setup"} <= named
    assert named <= targets


def test_routes_that_are_named_exist() -> None:
    documents = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "docs" / "openapi").glob("*.yaml"))]
    routes = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for document in documents
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post", "delete", "put", "patch")
    }
    for page in PAGES:
        for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`\s?]*)", page.read_text()):
            assert (method, re.sub(r"\{[^}]*\}", "{}", path)) in routes, f"{shown(page)} names {method} {path}"


def moves_on_the_page(name: str, page_name: str) -> dict[str, set[str]]:
    page = (ROOT / "docs" / page_name).read_text()
    table = page.partition(f"<!-- moves: {name} -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {state: set(re.findall(r"`(\w+)`", targets)) for state, targets in rows}


@pytest.mark.parametrize(
    ("name", "page", "moves"),
    [
        ("tasks", "town.md", tasks.MOVES),
        ("agents", "town.md", agents.MOVES),
        ("machines", "fleet.md", vms.MOVES),
        ("pools", "pools.md", pools.MOVES),
        ("runs", "runs.md", run_states.MOVES),
    ],
)
def test_the_tables_of_moves_are_those_of_the_code(
    name: str, page: str, moves: Mapping[StrEnum, frozenset[StrEnum]]
) -> None:
    assert moves_on_the_page(name, page) == {
        old.value: {new.value for new in targets} for old, targets in moves.items()
    }


def test_every_state_of_a_task_is_explained() -> None:
    page = (ROOT / "docs" / "town.md").read_text().partition("## Tasks")[2].partition("No other moves")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {state.value for state in tasks.TaskState}


SECTIONS = [
    (page, section)
    for page, module in (("operations.md", sections), ("governance.md", governance))
    for section in vars(module).values()
    if isinstance(section, type) and issubclass(section, sections.Section) and section.__module__ == module.__name__
    if section is not sections.Section
]


def written(field: msgspec.structs.FieldInfo) -> str | None:
    """Return a default as the page writes it; ``None`` for what is a section of its own."""
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT:
        return "`{}`"
    if isinstance(field.default, sections.Section):
        return None
    if field.default is None:
        return "\N{EN DASH}"
    return f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize(("page", "section"), SECTIONS, ids=[section.__name__ for _, section in SECTIONS])
def test_every_setting_is_on_the_page_with_its_default(page: str, section: type[sections.Section]) -> None:
    text = (ROOT / "docs" / page).read_text()
    table = text.partition(f"<!-- settings: {section.__name__} -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", table, re.MULTILINE)
    of_the_code = [
        (field.encode_name, written(field))
        for field in msgspec.structs.fields(section)
        if written(field) is not None and field.encode_name != "agent_clis"  # a table of sections, as the page shows it
    ]
    assert [(name, default) for name, default, _ in rows] == of_the_code
    assert all(len(meaning) > 5 for _, _, meaning in rows)


def test_every_dependency_has_its_reason() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    page = (ROOT / "docs" / "decisions" / "0008-dependencies-each-with-its-reason.md").read_text()
    reasons = dict(re.findall(r"^\| `([\w.-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert set(reasons) == {re.split(r"[<>=!~\[]", requirement)[0] for requirement in needed}
    assert all(len(reason) > 15 for reason in reasons.values())


def test_every_decision_is_listed_and_numbered_once() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = [page.name for page in sorted(folder.glob("[0-9]*.md"))]
    assert LINK.findall((folder / "README.md").read_text()) == pages
    for number, name in enumerate(pages, start=1):
        assert name.startswith(f"{number:04}-")
        assert (folder / name).read_text().startswith(f"# {number}. ")


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^\| ([a-z ]+) \| ", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 40
    assert words[1:] == sorted(words[1:])
