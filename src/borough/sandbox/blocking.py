"""Sandboxes for programs that wait."""

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from borough.client.controller_address import find_controller
from borough.client.fleet import UNDER_WAY, FleetClient
from borough.client.http import Client
from borough.client.urls import segment
from borough.core.errors import NotFound
from borough.core.ids import new_id
from borough.sandbox.errors import CommandFailed, FleetUnavailable, Refused, typed
from borough.sandbox.values import CommandResult, FileInfo

DEFAULT_LIFETIME_S: Final = 3600
_TIMEOUT_S: Final = 60.0
Listener = Callable[[str], None]


class Commands:
    """What runs in a sandbox."""

    def __init__(self, fleet: FleetClient, vm_id: str) -> None:
        self._fleet = fleet
        self._vm_id = vm_id

    def run(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes = b"",
        timeout_s: float | None = None,
        on_stdout: Listener | None = None,
        on_stderr: Listener | None = None,
        check: bool = False,
    ) -> CommandResult:
        """Run a command to its end: a line for the machine's shell, or a list of words without one.

        ``on_stdout`` and ``on_stderr`` are told what it prints, as it comes.

        Raises:
            CommandFailed: ``check`` is set and the exit code is not 0.
            NothingThere: the sandbox is gone.
            Refused: it does not run.
            FleetUnavailable: controller or host went away, or the command took longer than ``timeout_s``.
        """
        order: dict[str, object] = {"command": command} if isinstance(command, str) else {"argv": list(command)}
        order["env"] = dict(env or {})
        order |= {name: value for name, value in (("cwd", cwd), ("timeout_s", timeout_s)) if value is not None}
        said: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        listeners = {"stdout": on_stdout, "stderr": on_stderr}
        code = 0
        with typed():
            content = stdin.encode() if isinstance(stdin, str) else stdin
            for part in self._fleet.execute(self._vm_id, order, stdin=content):
                if part.exit_code is not None:
                    code = part.exit_code
                    continue
                said[part.stream] += part.data
                listener = listeners[part.stream]
                if listener is not None:
                    listener(part.data.decode("utf-8", "replace"))
        out, err = (said[stream].decode("utf-8", "replace") for stream in ("stdout", "stderr"))
        result = CommandResult(exit_code=code, stdout=out, stderr=err)
        if check and code:
            raise CommandFailed(result)
        return result


class Files:
    """The files of a sandbox."""

    def __init__(self, fleet: FleetClient, vm_id: str) -> None:
        self._fleet = fleet
        self._vm_id = vm_id

    def read(self, path: str) -> str:
        """Return a file as text; raises ``NothingThere``."""
        return self.read_bytes(path).decode()

    def read_bytes(self, path: str) -> bytes:
        """Return a file; raises ``NothingThere``."""
        with typed():
            return b"".join(self._fleet.read(self._vm_id, path))

    def write(self, path: str, content: str | bytes) -> int:
        """Write a file, with the folders above it; return how many bytes."""
        with typed():
            return self._fleet.write(self._vm_id, path, [content.encode() if isinstance(content, str) else content])

    def list(self, path: str = "/") -> list[FileInfo]:
        """Return the names in a folder; raises ``NothingThere``."""
        with typed():
            return [
                FileInfo(
                    name=each["name"],
                    path=each["path"],
                    is_dir=each["is_dir"],
                    size_bytes=each["size"],
                    modified_at=each["modified"],
                )
                for each in self._fleet.listing(self._vm_id, path)
            ]


class Sandbox:
    """A machine of the fleet. Use it from one thread; make one with ``create`` or ``connect``."""

    def __init__(self, fleet: FleetClient, detail: Mapping[str, Any]) -> None:
        self._fleet = fleet
        self._about = detail["env"]
        self._vm = detail["vms"][0]
        self.commands = Commands(fleet, self._vm["id"])
        self.files = Files(fleet, self._vm["id"])

    @classmethod
    def create(
        cls,
        *,
        image: str,
        engine: str = "qemu",
        cpu: int | None = None,
        memory_mib: int | None = None,
        disk_mib: int | None = None,
        ports: Sequence[int] = (),
        deny_outgoing: bool = False,
        ssh_keys: Sequence[str] = (),
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        id: str | None = None,  # noqa: A002 - what it is called everywhere
        server: str | None = None,
        api_key: str | None = None,
    ) -> Self:
        """Make a machine and return when it runs.

        Without ``server`` it is the controller that ``tt config`` saved; without ``api_key``, ``TT_API_KEY`` or the
        saved key.

        Raises:
            Refused: nothing can be made of this, or there is no room; the reason says why.
            FleetUnavailable: the controller does not answer, or the machine could not be made.
            NotAllowed: the key is not known.
        """
        vm: dict[str, object] = {
            "image": image,
            "engine": engine,
            "ports": list(ports),
            "deny_outgoing": deny_outgoing,
            "command": list(command),
            "env": dict(env or {}),
        }
        sizes = {"cpu": cpu, "mem": memory_mib, "disk": disk_mib}
        vm |= {name: size for name, size in sizes.items() if size is not None}
        body = {"ssh_keys": list(ssh_keys), "vms": [vm], "lifetime": lifetime_s}
        return cls._made(_client(server, api_key), body, id)

    @classmethod
    def _made(cls, fleet: FleetClient, body: Mapping[str, object], id: str | None) -> Self:  # noqa: A002 - as above
        name = id or f"sandbox-{new_id()[:13]}"
        try:
            with typed():
                whole = {"id": name, "owner": _owner(), **body}
                answer = fleet.post("/api/envs", whole, query={"async": "1"})
                _ended(fleet, answer, name)
                return cls(fleet, fleet.get(f"/api/envs/{segment(name)}"))
        except BaseException:
            fleet.close()
            raise

    def snapshot(self, name: str) -> None:
        """Keep its present state under a name; idempotent."""
        with typed():
            self._fleet.post(f"/api/vms/{self.vm_id}/snapshots", {"name": name})

    def restore(self, name: str) -> None:
        """Return to a snapshot; raises ``NothingThere``."""
        self._act(f"snapshots/{segment(name)}/restore")

    def clone(
        self,
        snapshot: str,
        *,
        env: Mapping[str, str] | None = None,
        ssh_keys: Sequence[str] = (),
        lifetime_s: int = DEFAULT_LIFETIME_S,
        id: str | None = None,  # noqa: A002 - as above
    ) -> Self:
        """Make another sandbox from a snapshot of this one, and return when it runs; each is closed on its own.

        It has this one's image, size, ports and limits, and its disk as it was; its variables and keys are those given
        here.

        Raises:
            NothingThere: there is no such snapshot.
            Refused: its engine cannot, or there is no room on its host; the reason says why.
        """
        source = {"vm_id": self.vm_id, "snapshot": snapshot, "env": dict(env or {})}
        body = {"ssh_keys": list(ssh_keys), "vms": [], "source": source, "lifetime": lifetime_s}
        return self._made(self._fleet.again(), body, id)

    @classmethod
    def connect(cls, id: str, *, server: str | None = None, api_key: str | None = None) -> Self:  # noqa: A002 - as above
        """Return a sandbox that exists; raises ``NothingThere``."""
        fleet = _client(server, api_key)
        try:
            with typed():
                detail = fleet.get(f"/api/envs/{segment(id)}")
            return cls(fleet, _with_machine(detail))
        except BaseException:
            fleet.close()
            raise

    @property
    def id(self) -> str:
        """The name by which it can be connected to again."""
        return str(self._about["id"])

    @property
    def vm_id(self) -> str:
        """The id of its machine."""
        return str(self._vm["id"])

    @property
    def state(self) -> str:
        """Return how its machine stands, as the controller knows it now."""
        with typed():
            return str(self._fleet.get(f"/api/vms/{self.vm_id}")["state"])

    def address(self, port: int) -> tuple[str, int]:
        """Return host and port at which a published port answers.

        Raises:
            Refused: the port is not published.
        """
        host_port = self._vm["port_map"].get(str(port))
        if host_port is None:
            raise Refused(
                f"port {port} is not published", code="not_published", resolution="name it in ports of create"
            )
        with typed():
            found = self._fleet.get(f"/api/hosts/{segment(self._vm['host_id'])}")
        return self._fleet.machine_at(str(found["addr"])), int(host_port)

    def stop(self) -> None:
        """Stop the machine; its disk stays."""
        self._act("stop")

    def start(self) -> None:
        """Start it again."""
        self._act("start")

    def extend(self, lifetime_s: int) -> None:
        """Let it live for so long from now on."""
        with typed():
            self._fleet.ask("PATCH", f"/api/envs/{segment(self.id)}", body={"lifetime": lifetime_s})

    def kill(self) -> None:
        """Delete it, with its disk; one that is gone already is no error."""
        with typed():
            try:
                answer = self._fleet.ask("DELETE", f"/api/envs/{segment(self.id)}", query={"async": "1"})
            except NotFound:
                return
            _ended(self._fleet, answer, self.id)

    def close(self) -> None:
        """Let go of the connection; the sandbox lives on until it is killed or expires."""
        self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.kill()
        finally:
            self.close()

    def _act(self, verb: str) -> None:
        with typed():
            self._vm = self._fleet.post(f"/api/vms/{self.vm_id}/{verb}")


def _client(server: str | None, api_key: str | None) -> FleetClient:
    with typed():
        return FleetClient(Client(find_controller(os.environ, named=server, key=api_key), timeout_s=_TIMEOUT_S))


def _with_machine(detail: dict[str, Any]) -> dict[str, Any]:
    if not detail["vms"]:
        name = detail["env"]["id"]
        raise Refused(f"environment {name} has no machine", code="no_machine", resolution="make another")
    return detail


def _owner() -> str:
    try:
        return os.environ.get("USER") or getpass.getuser()
    except (KeyError, OSError):
        return "default"  # a user without a name


def _ended(fleet: FleetClient, answer: Any, name: str) -> None:
    """Wait for an operation's end; raises ``FleetUnavailable`` when it did not do what was asked."""
    operation = answer if isinstance(answer, dict) and "kind" in answer else None
    while operation is not None and operation["state"] == UNDER_WAY:
        operation = fleet.operation(operation["id"])
    if operation is not None and operation["state"] != "succeeded":
        raise FleetUnavailable(
            f"{operation['kind']} of {name} is not done",
            code="operation_failed",
            reason="; ".join(operation["errors"].values()) or None,
            resolution="see its hosts; what is not confirmed is tried again by itself",
        )
