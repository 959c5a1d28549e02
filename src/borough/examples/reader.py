"""An example agent CLI: ``python -m borough.examples.reader``.

It reads a task on standard input, answers what the task asks about a tree of Python sources, writes a Markdown report
and prints where it is and what it says. It needs no model and no network, and changes nothing but its report.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from borough.examples.questions import QUESTIONS, Answer, Question
from borough.examples.sources import Module, python_files, read_module

_TASK = re.compile(r"^<<<<<<<< task (\S+)\n(.*?)\n>>>>>>>> end of task \1$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([^`\s]+)`|\b(?:in|under|below|over|of|beneath) ([\w.~-]*/[\w./-]*[\w/-])")
_STEPS = 10


class NotUnderstood(Exception):
    """The request is not one that this agent can serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a task asks for."""

    text: str
    question: Question
    path: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one task; return 0, or 1 when it cannot be served."""
    arguments = _parser().parse_args(argv)
    try:
        request = understand(sys.stdin.buffer.read().decode("utf-8", errors="replace"), start=Path.cwd())
        modules = _read(request.path, pace_s=arguments.pace)
        report = _write(request, request.question.answer(modules), modules, folder=arguments.out)
    except NotUnderstood as lack:
        sys.stderr.write(f"reader: {lack}\n")
        return 1
    _say(f"report: {report[0]}")
    _say(report[1])
    return 0


def understand(prompt: str, *, start: Path) -> Request:
    """Return what ``prompt`` (a task, bare or as a worker hands it over) asks for.

    Raises:
        NotUnderstood: it asks nothing that we can answer, or names a path that is not there.
    """
    framed = _TASK.search(prompt)
    text = (framed[2] if framed else prompt).strip()
    question = next((one for one in QUESTIONS if one.is_asked(text)), None)
    if question is None:
        known = ", ".join(one.title.lower() for one in QUESTIONS)
        first = text.splitlines()[0][:80] if text else "nothing"
        raise NotUnderstood(f"cannot do {first!r}; this agent answers questions about: {known}")
    return Request(text=text, question=question, path=_path(text, start))


def _path(text: str, start: Path) -> Path:
    """Return the tree that the text names, or ``start``; nothing outside ``start`` is read."""
    named = _NAMED.search(text)
    if named is None:
        return start
    wanted = (named[1] or named[2]).rstrip("/.,")
    path = (start / wanted).resolve()
    if not path.is_relative_to(start.resolve()):
        raise NotUnderstood(f"{wanted} is outside {start}; only files below it are read")
    if not path.exists():
        raise NotUnderstood(f"there is no {wanted} below {start}")
    return path


def _read(path: Path, *, pace_s: float) -> list[Module]:
    """Read the tree, telling progress about ten times; ``pace_s`` is spread over these."""
    files = python_files(path)
    modules = []
    step = max(1, len(files) // _STEPS)
    for number, file in enumerate(files, 1):
        modules.append(read_module(file, start=Path.cwd()))
        if number % step == 0 or number == len(files):
            _say(f"read {number} of {len(files)} files")
            time.sleep(pace_s * step / max(len(files), step))
    return modules


def _write(request: Request, answer: Answer, modules: Sequence[Module], *, folder: Path) -> tuple[Path, str]:
    """Write the report in one step; return its path and the summary."""
    below = os.path.relpath(request.path)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{request.question.title} {below}".lower()).strip("-")
    task_id = os.environ.get("TINYTOWN_TASK_ID", "")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{slug}-{task_id[:8]}.md" if task_id else f"{slug}.md")
    draft = path.with_suffix(f".{os.getpid()}.new")
    draft.write_text(_markdown(request, answer, modules, below=below), encoding="utf-8")
    draft.replace(path)
    return path, answer.summary


def _markdown(request: Request, answer: Answer, modules: Sequence[Module], *, below: str) -> str:
    unread = [module.path for module in modules if module.tree is None]
    lines = [f"# {request.question.title}: `{below}`", "", answer.summary, ""]
    if answer.rows:
        lines += [_row(answer.columns), _row(["---"] * len(answer.columns)), *map(_row, answer.rows), ""]
    if unread:
        lines += [f"Not valid Python, so counted by lines only: {', '.join(unread)}", ""]
    lines += ["Asked:", "", *(f"> {line}" for line in request.text.splitlines()), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m borough.examples.reader", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("READER_OUT", "reports")),
        metavar="DIR",
        help="where reports go (READER_OUT; default: %(default)s)",
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="a demonstration aid: spend about this much time on a task, so that progress can be watched",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
