"""How commands end: exit codes, and errors that say what happened, why and what to do next."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from borough.core.errors import BoroughError, Forbidden, NotFound

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_SERVER: Final = 3
NOT_ALLOWED: Final = 4
NOT_FOUND: Final = 5
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells do."""


class Failed(BoroughError):
    """A command could not do what it was asked, for a reason of its own."""

    default_code = "failed"


class Usage(BoroughError):
    """The command line itself is wrong in a way that only the command can see."""

    default_code = "usage"


def run(program: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run ``program`` and return its exit code; errors have been printed then."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = program.main(args=words, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as problem:
        sys.stderr.write(f"{problem.format_message()}\n")
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except (click.ClickException, BoroughError, OSError) as problem:
        return tell(_told(problem, name), as_json="--json" in words)
    return result if isinstance(result, int) else OK


def _told(problem: click.ClickException | BoroughError | OSError, name: str) -> BoroughError:
    if isinstance(problem, click.UsageError):
        return _usage(problem, name)
    if isinstance(problem, click.ClickException):
        return Failed(problem.format_message())
    return _from_system(problem) if isinstance(problem, OSError) else problem


def exit_code(problem: BoroughError) -> int:
    """Return the exit code that says what kind of failure ``problem`` is."""
    from borough.client.discovery import NoServer

    if isinstance(problem, Usage):
        return USAGE
    if isinstance(problem, NoServer):
        return NO_SERVER
    if isinstance(problem, Forbidden):
        return NOT_ALLOWED
    if isinstance(problem, NotFound):
        return NOT_FOUND
    return FAILED


def tell(problem: BoroughError, *, as_json: bool) -> int:
    """Print ``problem`` on stderr and return its exit code."""
    code = exit_code(problem)
    if as_json:
        import json

        document = {
            "error": problem.message,
            "why": problem.reason,
            "next": problem.resolution,
            "code": problem.code,
            "exit": code,
            **problem.details,
        }
        sys.stderr.write(f"{json.dumps(document)}\n")
        return code
    from borough.cli.text import harmless

    lines = [
        ("error", problem.message),
        ("why", problem.reason or _why(problem)),
        ("next", problem.resolution or "run the command with --help to see what it takes"),
    ]
    if "request_id" in problem.details:
        lines.append(("request", str(problem.details["request_id"])))
    for label, text in lines:
        sys.stderr.write(f"{label}: {harmless(text)}\n")
    return code


def _why(problem: BoroughError) -> str:
    status = problem.details.get("status")
    return f"the server answered {status} ({problem.code})" if status else problem.code.replace("_", " ")


def _usage(problem: click.UsageError, name: str) -> Usage:
    path = problem.ctx.command_path if problem.ctx else name
    return Usage(
        problem.format_message(),
        reason=f"{path!r} does not take that",
        resolution=f"see '{path} --help'",
    )


def _from_system(problem: OSError) -> Failed:
    where = f"{problem.filename}: " if problem.filename else ""
    return Failed(
        f"{where}{problem.strerror or problem}",
        code="system",
        reason=f"the operating system refused ({type(problem).__name__})",
        resolution="check the path, its owner and the space that is left",
    )


def _reader_gone() -> int:
    # The reader of our output left (``tt history | head``); what is still buffered has nowhere to go.
    import os

    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
    return OK
