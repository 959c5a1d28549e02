"""``python -m borough.worker``: parse, register where needed, serve, end."""

import argparse
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from uuid import uuid4

from borough.adapters import process
from borough.adapters.process import OWNER, Marker, ProcessRef
from borough.config.environment import WorkerEnvironment, worker_environment
from borough.core.errors import BoroughError
from borough.http.town.worker_wire import Registered, RegisterRequest
from borough.town.names import suggested_name
from borough.worker.connection import Away, Connection, Refused, ServerAddress
from borough.worker.control import Control, End
from borough.worker.loop import Worker
from borough.worker.options import Identity, WorkerOptions

log = logging.getLogger("borough.worker")

FAILED, NO_SERVER, NOT_ALLOWED = 1, 3, 4
_UNAUTHORISED = frozenset({401, 403})
_EARLIER_GRACE_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker; return its exit status: 0 it left, 1 failed, 2 usage, 3 no server, 4 not allowed."""
    arguments = parser(worker_environment(os.environ)).parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    try:
        return _serve(arguments)
    except Refused as refusal:
        log.error("the server refuses this worker: %s", refusal)  # noqa: TRY400 - a sentence for people
        return NOT_ALLOWED if refusal.status in _UNAUTHORISED else FAILED
    except Away as away:
        log.error("%s", away)  # noqa: TRY400 - as above
        return NO_SERVER
    except BoroughError as error:
        log.error("%s; %s", error.message, error.resolution)  # noqa: TRY400 - as above
        return FAILED
    except OSError as error:
        log.error("%s", error)  # noqa: TRY400 - as above
        return FAILED


def _serve(arguments: argparse.Namespace) -> int:
    address = ServerAddress(
        url=arguments.server.rstrip("/"),
        ca_file=arguments.ca_file,
        own_certificate=arguments.server_cert_file,
        certificate=arguments.cert_file,
        key=arguments.key_file,
    )
    token = arguments.token_file.read_text().strip() if arguments.token_file else None
    identity = replace(_identity(arguments, address, token), process=_introduction() if arguments.introduced else None)
    value = f"{identity.agent_id}:{identity.incarnation}"
    _end_earlier(identity)
    process.adopt_orphans()
    guard = process.start_guard(Marker(OWNER, value))
    control = Control()
    _obey_signals(control)
    with tempfile.TemporaryDirectory(prefix="attempts-", dir=arguments.state_dir) as folder:
        options = WorkerOptions(
            address=address,
            identity=identity,
            state_dir=Path(folder),
            give_up_s=arguments.give_up_s,
            stay=arguments.stay,
        )
        status = Worker(options, control, guard=guard).serve()
    if guard.popen.stdin is not None:
        guard.popen.stdin.close()
    guard.wait()
    return status


def _identity(arguments: argparse.Namespace, address: ServerAddress, token: str | None) -> Identity:
    """Return whom we serve: told by a launcher, or registered now."""
    if arguments.agent_id:
        return Identity(agent_id=arguments.agent_id, incarnation=arguments.incarnation, token=token)
    connection = Connection(address, token, give_up_s=arguments.give_up_s)
    request = RegisterRequest(name=arguments.name, cli=arguments.cli, role_id=arguments.role)
    answer = connection.post("/v1/workers", request, headers={"Idempotency-Key": str(uuid4())}).read(Registered)
    connection.close()
    log.info("registered as %s (%s), incarnation %d", answer.name, answer.agent_id, answer.incarnation)
    return Identity(agent_id=answer.agent_id, incarnation=answer.incarnation, token=answer.token)


def _introduction() -> ProcessRef:
    """Return who we are outside of our box, as our launcher says on standard input.

    Raises:
        OSError: it ended before it said so.
    """
    line = sys.stdin.readline()
    if not line:
        raise OSError("whoever started this worker ended before it had said who the worker is")
    told = json.loads(line)
    return ProcessRef(told["pid"], told["started_ticks"])


def _end_earlier(identity: Identity) -> None:
    """End what earlier incarnations of this agent left on this machine: only one may act for it."""
    for ref in process.owned(Marker(OWNER, f"{identity.agent_id}:")):
        value = process.marker_value(ref, OWNER)
        if value is not None and int(value.rpartition(":")[2]) < identity.incarnation:
            process.reap(Marker(OWNER, value), grace_s=_EARLIER_GRACE_S)


def _obey_signals(control: Control) -> None:
    def end(number: int, _frame: FrameType | None) -> None:
        control.finish(End.TERMINATED, f"the worker got {signal.Signals(number).name}")

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def parser(told: WorkerEnvironment) -> argparse.ArgumentParser:
    """Return what reads the command line; ``told`` is what counts where that says nothing."""
    command = argparse.ArgumentParser(
        prog="borough worker",
        description="Serve one agent: take its work from a server, run its CLI, report. Each option can also come"
        " from the environment variable named with it.",
    )
    add = command.add_argument
    server = told.server_url
    add("--server", default=server, required=not server, metavar="URL", help="the server (BOROUGH_SERVER)")
    add("--token-file", type=Path, default=told.token_file, metavar="FILE",
        help="file with the token to register with (BOROUGH_TOKEN_FILE)")  # fmt: skip
    add("--name", default=told.agent_name or suggested_name(socket.gethostname()),
        help="the agent's name; default: this machine's (TINYTOWN_AGENT_NAME)")  # fmt: skip
    add("--role", default=told.role, help="its role (TINYTOWN_AGENT_ROLE)")
    add("--cli", default=told.cli,
        help="its CLI; default: the town's (TINYTOWN_AGENT_CLI)")  # fmt: skip
    add("--ca-file", type=Path, default=told.ca_file, metavar="FILE",
        help="certificates to trust instead of the system's (BOROUGH_CA_FILE, TINYTOWN_CA_FILE)")  # fmt: skip
    add("--server-cert-file", type=Path, default=told.server_cert_file, metavar="FILE",
        help="the server's own certificate, trusted alone (BOROUGH_SERVER_CERT_FILE)")  # fmt: skip
    add("--cert-file", type=Path, default=told.cert_file, metavar="FILE",
        help="our own certificate, where one is asked for (BOROUGH_CERT_FILE, TINYTOWN_CLIENT_CERT)")  # fmt: skip
    add("--key-file", type=Path, default=told.key_file, metavar="FILE",
        help="its private key (BOROUGH_KEY_FILE, TINYTOWN_CLIENT_KEY)")  # fmt: skip
    add("--give-up-s", type=float, default=300.0, metavar="SECONDS",
        help="how long to be patient with a server that does not answer (default: %(default)g)")  # fmt: skip
    add("--stay", action="store_true",
        help="stay without work too: whoever started this worker says when it leaves")  # fmt: skip
    launched = command.add_argument_group("given by a launcher on the server's machine")
    launched.add_argument("--agent-id", metavar="ID", help="the agent, already registered")
    launched.add_argument("--incarnation", type=int, default=1, metavar="N", help="which start of it this is")
    launched.add_argument("--introduced", action="store_true", help="standard input says which process this is")
    launched.add_argument("--state-dir", type=Path, metavar="DIR", help="a private folder")
    return command


if __name__ == "__main__":
    sys.exit(main())
