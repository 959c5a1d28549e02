"""An example agent for machines: ``python -m borough.examples.surveyor``, with its task in ``SCARAB_TASK``.

It answers what the task asks about the Python sources of its workspace. All that it touches it touches through governed
tools, so its manifest decides what it may read and write, and each call is in the ledger. A task that says *publish*
writes into a folder for which people have to agree; a file that the manifest does not name is refused, and it says so.
It needs no model. The last line that it prints is its answer.
"""

import argparse
import ast
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename, relpath
from typing import Final

from borough.agent import Agent, AgentError, ToolFailed
from borough.examples.questions import QUESTIONS, Question
from borough.examples.sources import Module

WORKSPACE: Final = "/workspace"
REPORT: Final = f"{WORKSPACE}/out/report.md"
PUBLISHED: Final = f"{WORKSPACE}/published/report.md"
REFUSED: Final = 3
"""The exit code of an agent that may not read what it was asked about."""
_NAMED = re.compile(r"`([^`\s]+)`")
_MOST_FILES = 60
_STEPS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a task asks for."""

    question: Question
    path: str
    publish: bool


def main() -> int:
    """Do the task; return 0, 1 where it is not understood, 3 where the manifest does not allow it."""
    pace_s = _parser().parse_args().pace
    with Agent.from_env() as agent:
        wish = understand(agent.task or "")
        if wish is None:
            known = ", ".join(question.title.lower() for question in QUESTIONS)
            say(f"cannot do {agent.task!r}; this agent answers questions about: {known}")
            return 1
        try:
            modules = read(agent, wish.path, pace_s=pace_s)
        except ToolFailed as refusal:
            if refusal.code == "tool_error":
                raise
            agent.observe("refused", str(refusal), tags=["refusal"])
            say(f"refused: {refusal}")
            return REFUSED
        answer = report(agent, wish, modules)
        agent.observe("surveyed", answer, tags=["survey"])
        say(answer)
    return 0


def understand(task: str) -> Wish | None:
    """Return what a task asks for; ``None`` where it is no question that can be answered."""
    question = next((one for one in QUESTIONS if one.is_asked(task)), None)
    if question is None:
        return None
    named = _NAMED.search(task)
    path = f"{WORKSPACE}/{named[1].strip('/')}" if named else WORKSPACE
    return Wish(question=question, path=path, publish=re.search(r"\bpublish", task, re.IGNORECASE) is not None)


def read(agent: Agent, path: str, *, pace_s: float) -> list[Module]:
    """Read the Python files below ``path`` through ``fs.read``, the first sixty; raises ``ToolFailed``."""
    files = list(_python_files(agent, path))
    if len(files) > _MOST_FILES:
        say(f"{len(files)} files below {path}: the first {_MOST_FILES} are read")
        files = files[:_MOST_FILES]
    modules = []
    for number, file in enumerate(files, 1):
        modules.append(_module(file, str(agent.invoke_tool("fs.read", {"path": file})["content"])))
        if number % max(1, len(files) // _STEPS) == 0 or number == len(files):
            say(f"read {number} of {len(files)} files")
        time.sleep(pace_s / len(files))
    return modules


def report(agent: Agent, wish: Wish, modules: list[Module]) -> str:
    """Write the report, and publish it where that was asked; return its one sentence."""
    answer = wish.question.answer(modules)
    lines = [f"# {wish.question.title}: `{relpath(wish.path, WORKSPACE)}`", "", answer.summary, ""]
    lines += [" | ".join(row) for row in (answer.columns, *answer.rows)]
    text = "\n".join(lines) + "\n"
    agent.invoke_tool("fs.write", {"path": REPORT, "content": text})
    if wish.publish:
        say("asking whether the report may be published")
        agent.invoke_tool("fs.write", {"path": PUBLISHED, "content": text})  # waits here for a human
        say("published")
    return answer.summary


def _python_files(agent: Agent, path: str) -> Iterator[str]:
    if path.endswith(".py"):
        yield path
        return
    for entry in agent.invoke_tool("fs.list", {"path": path}):
        if entry["is_dir"]:
            yield from _python_files(agent, entry["path"])
        elif entry["name"].endswith(".py"):
            yield entry["path"]


def _module(file: str, text: str) -> Module:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        tree = None
    path = relpath(file, WORKSPACE)
    name = path.removesuffix(".py").replace("/", ".")
    return Module(path=path, name=name.removesuffix(".__init__") if basename(file) == "__init__.py" else name,
                  text=text, tree=tree)  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m borough.examples.surveyor", description=__doc__)
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="spend at least so long on reading")
    return parser


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as problem:
        sys.stderr.write(f"surveyor: {problem}\n")
        sys.exit(1)
