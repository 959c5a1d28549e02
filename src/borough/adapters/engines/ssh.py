"""Into machines with a kernel of their own: OpenSSH's client, with a key of this host daemon's own.

The key is made once and never leaves the host; its public half is in every seed. A machine's host key is taken from
its console, where cloud-init and others print it, and otherwise from the first contact; from then on no other is
accepted. No configuration of whoever runs the daemon is read.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.shells import Entrance, unreachable
from borough.core.errors import Unavailable

KNOWN_HOSTS = "known_hosts"
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_KEY = "id_ed25519"
_CONNECT_WITHIN_S = 15
_BANNER_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.2
_KEYS_BEGIN, _KEYS_END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")
_PRINTED_BYTES = 1 << 20
"""How much of a console is searched for keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a machine answers."""

    vm_id: str
    host: str
    port: int
    folder: Path
    """The machine's own on this host; its host key is kept there."""
    console: Path
    """What it printed."""


class Ssh:
    """The client with this host daemon's key, which is kept in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = folder / _KEY

    @staticmethod
    def missing() -> str | None:
        """Return what this host lacks, or ``None``."""
        lacking = [tool for tool in ("ssh", "ssh-keygen") if shutil.which(tool) is None]
        return f"there is no {' and no '.join(lacking)} (openssh-client)" if lacking else None

    def public_key(self) -> str:
        """Return the public half of the key, which is made if there is none. Blocks."""
        public = self._key.with_suffix(".pub")
        if not public.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._key.unlink(missing_ok=True)
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "borough", "-f", str(self._key)]
            finished = process.run(argv, env=ENVIRONMENT)
            if finished.code != 0:
                raise Unavailable(
                    f"no key could be made: {finished.words}",
                    code="engine_failed",
                    resolution=f"see that {self._folder} can be written",
                )
        return public.read_text().strip()

    def argv(self, door: Door, command: str, *, terminal: bool = False) -> Sequence[str]:
        """Return what runs ``command`` in the machine's shell."""
        pinned = (door.folder / KNOWN_HOSTS).exists()
        return [
            "ssh",
            "-F", "none",
            "-i", str(self._key),
            "-p", str(door.port),
            "-l", "root",
            *(["-tt"] if terminal else ["-T"]),
            "-e", "none",
            "-o", "BatchMode=yes",
            "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none",
            "-o", f"ConnectTimeout={_CONNECT_WITHIN_S}",
            "-o", "ServerAliveInterval=15",
            "-o", "LogLevel=ERROR",
            "-o", f"HostKeyAlias={door.vm_id}",
            "-o", f"UserKnownHostsFile={door.folder / KNOWN_HOSTS}",
            "-o", "GlobalKnownHostsFile=none",
            "-o", f"StrictHostKeyChecking={'yes' if pinned else 'accept-new'}",
            "--", door.host, command,
        ]  # fmt: skip


def entrance(ssh: Ssh, door: Door, *, within_s: float, still_runs: Callable[[], Awaitable[bool]]) -> Entrance:
    """Return the way in; a machine that starts may take ``within_s`` until it answers."""

    def argv(command: str, terminal: bool) -> Sequence[str]:  # noqa: FBT001 - as the field has it
        return ssh.argv(door, command, terminal=terminal)

    async def ready() -> None:
        await answers(door, within_s=within_s, still_runs=still_runs)

    return Entrance(
        vm_id=door.vm_id,
        argv=argv,
        environment=ENVIRONMENT,
        folder=door.folder,
        ready=ready,
        still_runs=still_runs,
    )


async def answers(door: Door, *, within_s: float, still_runs: Callable[[], Awaitable[bool]]) -> None:
    """Return once SSH is spoken behind ``door``: a port that opens proves nothing, its first words do. Its host key is
    taken from its console, if it is printed there and none is kept yet.

    Raises:
        Unavailable: it is not within that time, or the machine ended (``guest_unreachable``).
    """
    deadline = time.monotonic() + within_s
    while not await speaks(door):
        if not await still_runs():
            raise unreachable(door.vm_id, "the machine ended meanwhile")
        if time.monotonic() > deadline:
            raise unreachable(door.vm_id, f"it did not answer at its port of SSH within {within_s:g} s")
        await asyncio.sleep(_LOOK_AGAIN_S)
    await asyncio.to_thread(_pin, door)


def host_keys(printed: str) -> list[str]:
    """Return the public keys that a machine printed to its console as its own, the last time it did."""
    _, begun, after = printed.rpartition(_KEYS_BEGIN)
    inside, ended, _ = after.partition(_KEYS_END)
    if not begun or not ended:
        return []
    lines = (line.split() for line in inside.splitlines())
    return [" ".join(words[:2]) for words in lines if len(words) > 1 and words[0].startswith(_KEY_KINDS)]


async def speaks(door: Door) -> bool:
    """Tell whether SSH is spoken behind ``door`` now."""
    with suppress(OSError, TimeoutError):  # nobody there yet
        async with asyncio.timeout(_BANNER_WITHIN_S):
            reader, writer = await asyncio.open_connection(door.host, door.port)
            try:
                return (await reader.read(4)).startswith(b"SSH-")
            finally:
                writer.close()
    return False


def _pin(door: Door) -> None:
    file = door.folder / KNOWN_HOSTS
    if file.exists():
        return
    try:
        with door.console.open("rb") as log:
            printed = log.read(_PRINTED_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    keys = host_keys(printed)
    if keys:
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text("".join(f"{door.vm_id} {key}\n" for key in keys))
        draft.replace(file)
