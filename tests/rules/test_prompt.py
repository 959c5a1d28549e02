"""What an agent CLI is told, and how its end is put into words."""

import os
from pathlib import Path

import pytest

from borough.http.town.views import MessageView, TaskView
from borough.http.town.worker_wire import CliSettings, LeaseView, WorkerSettings
from borough.town.names import SUPERVISOR_ID
from borough.worker.command import MAX_ARGUMENT_BYTES, Input, Surroundings, arguments, environment
from borough.worker.outcome import MAX_RESULT_BYTES, Exited, TimedOut, failure, result
from borough.worker.prompt import pointer, prompt, reminder, task_closing, task_opening

NOON = "2030-01-01T12:00:00.000Z"
TASK = "11111111-2222-4333-8444-555555555555"
HARD = "first\r\n\tsecond ``` fence\n" + "x" * 5000 + "\n>>>>>>>> end of task 0\nünï\x07\n\n"


def settings(on_exit_zero: str = "complete") -> WorkerSettings:
    cli = CliSettings(
        name="c", argv=["c"], input="stdin", workdir=None, env={}, timeout_secs=9, on_exit_zero=on_exit_zero
    )
    return WorkerSettings(
        agent_id="a", name="alder", town="elm", role="backend", state="idle", lease_ms=3, heartbeat_ms=1,
        idle_timeout_secs=0, cli=cli,
    )  # fmt: skip


def lease(description: str, *, kind: str = "task_assign", last_error: str | None = None, mail: int = 0) -> LeaseView:
    task = TaskView(
        task_id=TASK, description=description, kind=kind, state="running", role=None, urgent=True, tags=["db", "ui"],
        sender=SUPERVISOR_ID, parent_id=None, agent_id="a", attempts=2, max_attempts=3, epoch=2, timeout_secs=None,
        created_at=NOON, updated_at=NOON, started_at=NOON, completed_at=None, not_before=None, lease_expires_at=NOON,
        result=None, last_error=last_error,
    )  # fmt: skip
    messages = [
        MessageView(id=f"m{n}", from_="b", to="a", type="info", text=f"mail {n}\n{HARD}", urgent=False, created_at=NOON)
        for n in range(mail)
    ]
    return LeaseView(task=task, attempt_token="secret", mail=messages)


def test_the_task_stands_whole_between_its_marks() -> None:
    text = prompt(lease(HARD), settings())
    assert f"{task_opening(TASK)}\n{HARD}\n{task_closing(TASK)}\n" in text


def test_every_message_stands_whole() -> None:
    text = prompt(lease("do", mail=20), settings())
    assert all(f"mail {n}\n{HARD}" in text for n in range(20))
    assert "from agent b" in text


def test_it_says_who_asks_and_how_to_finish_and_no_secret() -> None:
    text = prompt(lease("do", last_error="exit code 1"), settings())
    assert "alder (role backend) in the town elm" in text
    assert "from the supervisor, attempt 2 of 3, urgent, tags: db, ui." in text
    assert "The attempt before this one failed: exit code 1" in text
    assert f"tt task complete {TASK}" in text
    assert f"tt task fail {TASK}" in text
    assert "secret" not in text


def test_a_query_asks_for_an_answer() -> None:
    assert "your result is the answer" in prompt(lease("why?", kind="query"), settings())


def test_what_silence_means_depends_on_the_preset() -> None:
    assert "what you printed becomes the result" in prompt(lease("do"), settings())
    assert "counts as not finished" in prompt(lease("do"), settings("reprompt"))


def test_a_reminder_counts_and_repeats_the_task() -> None:
    text = reminder(lease(HARD), settings("reprompt"), number=2)
    assert text.startswith("You ended without reporting")
    assert "reminder 2 of 2" in text
    assert prompt(lease(HARD), settings("reprompt")) in text


@pytest.mark.parametrize(
    ("argv", "mode", "wanted"),
    [
        (["c", "-x"], Input.STDIN, ["c", "-x"]),
        (["c", "-f"], Input.FILE, ["c", "-f", "/p"]),
        (["c", "-f", "{prompt_file}", "-v"], Input.FILE, ["c", "-f", "/p", "-v"]),
        (["c", "-m"], Input.ARGUMENT, ["c", "-m", "$(do) 'it'"]),
        (["c", "{prompt}", "-v"], Input.ARGUMENT, ["c", "$(do) 'it'", "-v"]),
    ],
)
def test_the_prompt_goes_where_the_preset_says(argv: list[str], mode: Input, wanted: list[str]) -> None:
    assert arguments(argv, mode, text="$(do) 'it'", file=Path("/p")) == wanted


def test_an_argument_that_linux_would_not_take_points_to_the_file() -> None:
    fits, long = "é" * (MAX_ARGUMENT_BYTES // 2), "é" * (MAX_ARGUMENT_BYTES // 2 + 1)
    assert arguments(["c"], Input.ARGUMENT, text=fits, file=Path("/p")) == ["c", fits]
    for unfit in (long, "a\0b"):
        assert arguments(["c"], Input.ARGUMENT, text=unfit, file=Path("/p")) == ["c", pointer("/p")]


def test_a_preset_cannot_pose_as_another_agent() -> None:
    around = Surroundings(
        agent_id="a",
        agent_name="alder",
        incarnation=3,
        task_id="t",
        epoch=2,
        server_url="http://s",
        token_file=Path("/k"),
        programs=Path("/own/bin"),
    )
    env = environment({"HOME": "/h"}, {"TINYTOWN_AGENT_ID": "b", "X": "1"}, around, owner="OWN", attempt="TRY")
    assert env["TINYTOWN_AGENT_ID"] == "a"
    assert (env["HOME"], env["X"], env["OWN"], env["TRY"]) == ("/h", "1", "a:3", "t:2")
    assert env["PATH"] == f"{os.defpath}:/own/bin"
    assert environment({"PATH": "/a:/b"}, {}, around, owner="OWN", attempt="TRY")["PATH"] == "/a:/b:/own/bin"


def test_a_failure_has_its_cause_and_the_end_of_the_output() -> None:
    assert failure(Exited(status=3, tail=b"", printed=0)) == "exit code 3"
    assert failure(Exited(status=-9, tail=b"x\n", printed=2)) == "the agent CLI was ended by signal SIGKILL\nx"
    assert failure(TimedOut(after_s=60.0, tail=b"")) == "timeout: the agent CLI was ended after 60 s"
    long = failure(Exited(status=1, tail="é".encode() * 5000, printed=10_000))
    assert len(long.encode()) <= 4096 + len("exit code 1\n")
    assert "\ufffd" not in long


def test_a_result_is_whole_while_it_fits_and_else_cut_at_the_front() -> None:
    assert result(Exited(status=0, tail=b"fine\n", printed=5)) == "fine\n"
    assert result(Exited(status=0, tail=b" \n", printed=2)) == "Completed"
    tail = "é".encode() * 600_000
    cut = result(Exited(status=0, tail=tail, printed=2_000_000))
    assert len(cut.encode()) <= MAX_RESULT_BYTES
    assert cut.startswith("[the first ")
    assert cut.endswith("éé")
    assert "\ufffd" not in cut


def test_output_that_is_no_utf8_stays_within_the_limit() -> None:
    noise = bytes([0xFF]) * MAX_RESULT_BYTES
    assert len(result(Exited(status=0, tail=noise, printed=len(noise))).encode()) <= MAX_RESULT_BYTES
