"""``townhall`` and ``borough``: what reaches the server from the command line."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from borough.cli import borough, townhall
from borough.cli.errors import run

Served = list[tuple[Path, str | None, int | None, bool]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, clean: Path) -> Served:
    """What the server was asked to serve; the server itself is tested elsewhere."""
    calls: Served = []
    module = ModuleType("borough.server")

    def serve(town_root: Path, bind: str | None, port: int | None, verbose: bool) -> int:  # noqa: FBT001
        calls.append((town_root, bind, port, verbose))
        return 7

    module.serve = serve  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "borough.server", module)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (Path(), None, None, False)),
        (["rest"], (Path(), None, None, False)),
        (["rest", "--bind", "127.0.0.1", "--port", "8080"], (Path(), "127.0.0.1", 8080, False)),
        (["-v", "-t", "/srv/t", "rest", "-b", "::1", "-p", "9000"], (Path("/srv/t"), "::1", 9000, True)),
    ],
)
def test_townhall_serves_rest_with_what_it_was_told(
    served: Served, words: list[str], expected: tuple[Path, str | None, int | None, bool]
) -> None:
    assert run(townhall.program, "townhall", words) == 7
    assert served == [expected]


def test_townhall_refuses_what_is_no_port(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(townhall.program, "townhall", ["rest", "--port", "70000"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert served == []


def test_borough_up_makes_a_town_where_there_is_none_and_serves_it(served: Served, clean: Path) -> None:
    assert run(borough.program, "borough", ["up", "--port", "8099"]) == 7
    assert served == [(clean.resolve(), None, 8099, False)]
    assert (clean / "tinytown.toml").is_file()
    assert run(borough.program, "borough", ["up"]) == 7
    assert served[-1] == (clean.resolve(), None, None, False)


def test_borough_up_serves_the_town_above(served: Served, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(borough.program, "borough", ["up"])
    (clean / "src").mkdir()
    monkeypatch.chdir(clean / "src")
    run(borough.program, "borough", ["up"])
    assert served[-1][0] == clean.resolve()
    assert not (clean / "src" / "tinytown.toml").exists()


def test_borough_bench_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(borough.program, "borough", ["bench"]) == 0
    assert "make bench" in capsys.readouterr().out
