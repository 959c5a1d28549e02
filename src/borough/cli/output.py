"""What commands print: one JSON document, tables on a terminal, plain tab-separated lines in a pipe.

Results go to stdout; everything said about them goes to stderr.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final

import click

from borough.cli.commands import invocation
from borough.cli.text import ago, harmless, harmless_block, padded, shortened, width
from borough.core.clock import utc_now

STATE_COLOURS: Final[Mapping[str, str]] = {
    "idle": "green",
    "working": "cyan",
    "starting": "cyan",
    "paused": "yellow",
    "draining": "yellow",
    "stopped": "bright_black",
    "cold": "bright_black",
    "error": "red",
    "pending": "yellow",
    "assigned": "blue",
    "running": "cyan",
    "delayed": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "bright_black",
}
_MIN_LAST_COLUMN: Final = 12
_GAP: Final = "  "


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where a command's results go and in which form."""

    json_asked: bool
    stream: IO[str]
    terminal: bool
    colour: bool
    columns: int

    def show(self, document: object, human: Callable[[], None]) -> None:
        """Print ``document`` where JSON was asked for, else let ``human`` print."""
        if self.json_asked:
            self.document(document)
        else:
            human()

    def document(self, value: object) -> None:
        """Print one JSON document: indented for people, on one line for programs."""
        # ASCII only: no character of a server's text can then steer the terminal that shows it.
        self._write(json.dumps(value, indent=2 if self.terminal else None))

    def record(self, value: object) -> None:
        """Print one JSON document of many, on a line of its own, at once."""
        self._write(json.dumps(value))
        self.stream.flush()

    def line(self, text: str) -> None:
        """Print one harmless line."""
        self._write(harmless(text))

    def block(self, text: str) -> None:
        """Print a text of many lines, harmless on a terminal."""
        self._write(harmless_block(text) if self.terminal else text)

    def fields(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Print names and values, one pair a line; what is ``None`` is left out."""
        shown = [(name, harmless(str(value))) for name, value in pairs if value is not None]
        longest = max((width(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._write(f"{padded(name, longest)}  {value}" if self.terminal else f"{name}\t{value}")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
        """Print rows: aligned under headings on a terminal, tab-separated without headings in a pipe."""
        cells = [[harmless("" if cell is None else str(cell)) for cell in row] for row in rows]
        if not self.terminal:
            for row in cells:
                self._write("\t".join(row))
        elif not cells:
            say(empty)
        else:
            self._aligned([heading.upper() for heading in headings], cells)

    def when(self, timestamp: str | None) -> str:
        """Return a time for people on a terminal and as it is (RFC 3339) in a pipe."""
        if not self.terminal:
            return timestamp or ""
        return ago(timestamp, self.now())

    def now(self) -> datetime:
        """Return the present."""
        return utc_now()

    def _aligned(self, headings: list[str], rows: list[list[str]]) -> None:
        widths = [max(width(line[index]) for line in (headings, *rows)) for index in range(len(headings))]
        before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(_MIN_LAST_COLUMN, self.columns - before))
        self._write(self._styled(_joined(headings, widths), bold=True))
        for row in rows:
            self._write(self._row(row, widths))

    def _row(self, row: list[str], widths: list[int]) -> str:
        cells = [padded(shortened(cell, columns), columns) for cell, columns in zip(row, widths, strict=True)]
        coloured = [self._styled(cell, fg=STATE_COLOURS.get(cell.strip().lower())) for cell in cells]
        return _GAP.join(coloured).rstrip()

    def _styled(self, text: str, *, fg: str | None = None, bold: bool | None = None) -> str:
        return click.style(text, fg=fg, bold=bold) if self.colour and (fg or bold) else text

    def _write(self, text: str) -> None:
        self.stream.write(f"{text}\n")


def _joined(cells: list[str], widths: list[int]) -> str:
    return _GAP.join(
        padded(shortened(cell, columns), columns) for cell, columns in zip(cells, widths, strict=True)
    ).rstrip()


def output() -> Output:
    """Return the output of the present command."""
    terminal = sys.stdout.isatty()
    return Output(
        json_asked=invocation().json,
        stream=sys.stdout,
        terminal=terminal,
        colour=terminal and not _plain_asked(),
        columns=shutil.get_terminal_size().columns,
    )


def _plain_asked() -> bool:
    return bool(invocation().no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb")


def say(text: str) -> None:
    """Tell people something that is not a result: one harmless line on stderr."""
    sys.stderr.write(f"{harmless(text)}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Tell people of something that they may not expect."""
    say(f"warning: {text}")


def confirmed(question: str, *, word: str | None = None) -> bool:
    """Ask on the terminal; ``word``: what has to be typed instead of a plain yes. Without a terminal: no."""
    if not sys.stdin.isatty():
        return False
    if word is None:
        return click.confirm(harmless(question), err=True)
    typed: Any = click.prompt(harmless(f"{question} Type {word!r} to go on"), default="", show_default=False, err=True)
    return bool(typed == word)
