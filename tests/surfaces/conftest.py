"""Fixtures of the command lines: a scripted server, and ``tt`` without anything of the developer's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.surfaces.scripted import CommandLine, ScriptedServer


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty present folder and home, and no variable that a command would heed."""
    for name in (
        *("TINYTOWN_SERVER", "TT_SERVER", "TINYTOWN_TOKEN_FILE", "TOWNHALL_API_KEY", "TT_NO_START", "REDIS_URL"),
        *("TINYTOWN_AGENT_ID", "TINYTOWN_AGENT_NAME", "TINYTOWN_CA_FILE", "NO_COLOR"),
    ):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    here = tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def tt(clean: Path, server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """``tt`` against the scripted server."""
    return CommandLine(capsys, server)


@pytest.fixture
def local_tt(clean: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """``tt`` with no server named."""
    return CommandLine(capsys)
