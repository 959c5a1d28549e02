"""What commands print: harmless, aligned on a terminal, plain in a pipe, one document as JSON."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from borough.cli.output import Output
from borough.cli.text import ago, duration, harmless, harmless_block, padded, shortened, size, width

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def an_output(*, terminal: bool = False, colour: bool = False, json_asked: bool = False, columns: int = 80) -> Output:
    return Output(json_asked=json_asked, stream=io.StringIO(), terminal=terminal, colour=colour, columns=columns)


def written(out: Output) -> str:
    assert isinstance(out.stream, io.StringIO)
    return out.stream.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Ünïcode 日本", "plain Ünïcode 日本"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("bell\x07", "bell\\x07"),
        ("a\nb\tc", "a⏎b\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("evil\u202etxt", "evil\\u202etxt"),
        ("\u200dfamily", "\u200dfamily"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_block_keeps_its_lines_and_tabs_only() -> None:
    assert harmless_block("one\r\n\ttwo\x1b]0;title\x07") == "one\n\ttwo\\x1b]0;title\\x07"


def test_widths_count_columns_not_characters() -> None:
    assert [width("ab"), width("日本"), width("e\u0301")] == [2, 4, 1]
    assert padded("日本", 6) == "日本  "
    assert shortened("日本語です", 5) == "日本…"
    assert shortened("short", 5) == "short"


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(milliseconds=850), "850 ms"),
        (timedelta(seconds=2.34), "2.3 s"),
        (timedelta(seconds=59.9), "59 s"),
        (timedelta(seconds=185), "3 min 5 s"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=4, hours=3, minutes=9), "4 d 3 h"),
    ],
)
def test_durations_read_as_people_say_them(length: timedelta, words: str) -> None:
    assert duration(length) == words


def test_times_are_relative_and_strange_ones_stay_as_they_are() -> None:
    assert ago("2026-01-01T11:59:30.000Z", NOON) == "30 s ago"
    assert ago("2026-01-01T13:00:00.000Z", NOON) == "in 1 h"
    assert ago("yesterday", NOON) == "yesterday"
    assert ago(None, NOON) == ""


def test_sizes_choose_their_unit() -> None:
    assert [size(12), size(2048), size(5 << 30)] == ["12 B", "2.0 KiB", "5.0 GiB"]


def test_a_table_in_a_pipe_is_tab_separated_without_headings_or_colour() -> None:
    out = an_output(colour=False)
    out.table(("name", "state"), [("ada", "idle"), ("bob\x1b[0m", None)], empty="none")
    assert written(out) == "ada\tidle\nbob\\x1b[0m\t\n"


def test_a_tab_in_a_cell_cannot_make_a_column() -> None:
    out = an_output()
    out.table(("name", "text"), [("ada", "one\ttwo")], empty="none")
    assert written(out).count("\t") == 1


def test_a_table_on_a_terminal_is_aligned_and_fits() -> None:
    out = an_output(terminal=True, columns=30)
    out.table(("name", "what"), [("ada", "x" * 100), ("日本", "short")], empty="none")
    lines = written(out).splitlines()
    assert lines[0].split() == ["NAME", "WHAT"]
    assert all(width(line) <= 30 for line in lines)
    assert lines[1].endswith("…")
    assert lines[2].index("short") == 4  # two wide characters take the four columns of the heading


def test_states_are_coloured_on_a_terminal_that_wants_colour() -> None:
    rows = [("ada", "idle", "-")]
    plain, coloured = an_output(terminal=True), an_output(terminal=True, colour=True)
    for out in (plain, coloured):
        out.table(("name", "state", "more"), rows, empty="none")
    assert "\x1b[" not in written(plain)
    assert "\x1b[32midle" in written(coloured)


def test_an_empty_table_says_so_on_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    out = an_output(terminal=True)
    out.table(("name",), [], empty="there are none")
    assert written(out) == ""
    assert capsys.readouterr().err == "there are none\n"


def test_json_is_one_document_and_cannot_steer_a_terminal() -> None:
    out = an_output(json_asked=True)
    out.show({"text": "\x9b31m\u202eü"}, lambda: pytest.fail("people were shown something"))
    assert written(out).isascii()
    assert json.loads(written(out)) == {"text": "\x9b31m\u202eü"}


def test_without_json_people_are_shown_what_is_meant_for_them() -> None:
    out = an_output()
    out.show({"text": "x"}, lambda: out.line("for people"))
    assert written(out) == "for people\n"


def test_fields_leave_out_what_is_not_there() -> None:
    out = an_output(terminal=True)
    out.fields([("state", "idle"), ("role", None), ("id", 7)])
    assert written(out) == "state  idle\nid     7\n"


def test_times_in_a_pipe_are_rfc3339() -> None:
    assert an_output().when("2026-01-01T00:00:00.000Z") == "2026-01-01T00:00:00.000Z"
    assert an_output(terminal=True).when("2026-01-01T00:00:00.000Z").endswith(" ago")
