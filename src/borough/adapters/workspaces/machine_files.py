"""The file tools in an agent's own machine: the port ``Files``, over commands that any machine has.

A small program of the machine's own shell walks to a file step by step. It believes no name: a folder that it entered
must be the one that was named, and so must a file that it opened, else a link was on the way.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final, NoReturn
from uuid import uuid4

from borough.adapters.workspaces.homes import Guests, Homes, once_it_runs
from borough.adapters.workspaces.refusals import (
    full,
    is_a_directory,
    not_a_directory,
    not_a_file,
    not_found,
    over_a_link,
)
from borough.core.errors import Forbidden, NotFound, Unavailable
from borough.core.ids import AgentId
from borough.fleet.ports.engines import ExecOrder, Stream
from borough.fleet.vms import VmId
from borough.governance.globs import compile_glob
from borough.governance.ports.workspaces import FileContent, FileEntry

_NEVER_SHOWN: Final = ("/proc", "/sys", "/dev")
_WITHIN_S: Final = 60.0
_MOST_SAID_BYTES: Final = 4096
_LINK, _ABSENT, _FOLDER, _SPECIAL, _FULL, _CLOSED, _NO_FOLDER = range(71, 78)
"""Exit statuses of the program below."""

_PROGRAM: Final = """
into() {
  cd / || exit 72
  here= rest=${1#/}
  while case $rest in */*) true;; *) false;; esac; do
    step=${rest%%/*} rest=${rest#*/}
    [ -L "./$step" ] && exit 71
    [ "$2" = make ] && [ ! -e "./$step" ] && { mkdir "./$step" || exit 75; }
    cd -P "./$step" 2>/dev/null || exit 72
    here=$here/$step
    [ "$(pwd -P)" = "$here" ] || exit 71
  done
  name=$rest
}
regular() {
  [ -L "./$name" ] && exit 71
  [ -e "./$name" ] || exit 72
  [ -d "./$name" ] && exit 73
  [ -f "./$name" ] || exit 74
}
same() { [ "$(readlink "/proc/$$/fd/3")" = "$here/$name" ] || exit 71; }
renew() {
  mode=644
  [ -f "./$name" ] && mode=$(stat -c %a "./$name")
  draft=.$1.new
  (umask 077; cat >"./$draft") && [ "$(wc -c <"./$draft")" -eq "$2" ] && chmod "$mode" "./$draft" &&
    mv -f "./$draft" "./$name" || { rm -f "./$draft"; exit 75; }
}
path=$2
case $1 in
read)
  into "$path" no; regular
  exec 3<"./$name" || exit 76
  same
  wc -c <"/proc/$$/fd/3" && exec head -c "$3" <&3;;
write)
  into "$path" make
  if [ -L "./$name" ] || [ -e "./$name" ]; then regular; fi
  renew "$3" "$4";;
append)
  into "$path" make
  if [ -L "./$name" ] || [ -e "./$name" ]; then regular; else renew "$3" "$4"; exit; fi
  exec 3>>"./$name" || exit 76
  same
  before=$(wc -c <"./$name")
  [ $((before + $4)) -le "$5" ] || exit 75
  cat >&3 || { truncate -s "$before" "./$name"; exit 75; };;
delete)
  into "$path" no
  [ -L "./$name" ] || [ -e "./$name" ] || exit 72
  [ ! -L "./$name" ] && [ -d "./$name" ] && exit 73
  rm -f "./$name" || exit 76;;
look)
  into "$path" no
  [ -n "$name" ] && [ -L "./$name" ] && exit 71
  [ -e "./$name" ] || exit 72
  [ -d "./$name" ] || exit 77;;
esac
"""


class MachineFiles:
    """Reads and writes in the machine that an agent lives in. No symbolic link is followed."""

    def __init__(self, homes: Homes, *, largest_bytes: int) -> None:
        """``largest_bytes`` is the size of the largest file."""
        self._homes = homes
        self._largest_bytes = largest_bytes

    async def read(self, agent_id: AgentId, path: str, *, limit: int) -> FileContent:
        """Return at most ``limit`` bytes; raises as the port says."""
        said = await self._do(agent_id, "read", path, str(limit))
        size, _, content = said.partition(b"\n")
        return FileContent(content=content, size=int(size))

    async def write(self, agent_id: AgentId, path: str, content: bytes, *, append: bool) -> int:
        """Write a file whole or not at all (or append), making folders; raises as the port says."""
        if len(content) > self._largest_bytes:
            raise full(path, f"a file may have at most {self._largest_bytes} bytes")
        how = (uuid4().hex, str(len(content)), str(self._largest_bytes))
        await self._do(agent_id, "append" if append else "write", path, *how, content=content)
        return len(content)

    async def listing(self, agent_id: AgentId, path: str, *, glob: str | None, limit: int) -> tuple[FileEntry, ...]:
        """Return a folder's names, in order; raises as the port says."""
        await self._do(agent_id, "look", path)
        guests, vm_id = await self._homes.guests(), self._machine(agent_id)
        found = sorted(await guests.listing(vm_id, path), key=lambda entry: entry.name)
        wanted = None if glob is None else compile_glob(glob)
        return tuple(
            FileEntry(
                name=entry.name, path=f"{path.rstrip('/')}/{entry.name}", is_dir=entry.is_dir, size=entry.size,
                modified=entry.modified,
            )
            for entry in found
            if wanted is None or wanted.matches(entry.name)
        )[:limit]  # fmt: skip

    async def delete(self, agent_id: AgentId, path: str) -> bool:
        """Delete a file and tell whether it was there; raises ``Conflict`` (``is_a_directory``)."""
        try:
            await self._do(agent_id, "delete", path)
        except NotFound as error:
            if error.code != "file_not_found":
                raise
            return False
        return True

    def _machine(self, agent_id: AgentId) -> VmId:
        vm_id = self._homes.machine_of(agent_id)
        if vm_id is None:
            raise NotFound(f"agent {agent_id} has no machine", code="agent_not_found", resolution="start it again")
        return vm_id

    async def _do(self, agent_id: AgentId, what: str, path: str, *words: str, content: bytes = b"") -> bytes:
        """Run the program in the agent's machine and return what it prints."""
        vm_id = self._machine(agent_id)
        if any(path == place or path.startswith(f"{place}/") for place in _NEVER_SHOWN):
            raise Forbidden(f"nobody's tools see {path}", code="outside_workspace", resolution="name a regular file")
        guests = await self._homes.guests()
        order = ExecOrder(
            argv=("/bin/sh", "-c", _PROGRAM, "files", what, path, *words), env={"LC_ALL": "C"}, timeout_s=_WITHIN_S
        )  # fmt: skip
        status, out, complaint = await once_it_runs(lambda: _ended(guests, vm_id, order, content))
        if status != 0:
            _refuse(path, vm_id, status, complaint)
        return out


async def _ended(guests: Guests, vm_id: VmId, order: ExecOrder, content: bytes) -> tuple[int | None, bytes, str]:
    """Run a command to its end; return its status, what it printed, and its complaints."""
    out, complaint, status = bytearray(), bytearray(), None
    async with aclosing(guests.execute(vm_id, order, _only(content))) as chunks:
        async for chunk in chunks:
            if chunk.stream is Stream.STDOUT:
                out += chunk.data
            elif chunk.stream is Stream.STDERR:
                complaint += chunk.data[: _MOST_SAID_BYTES - len(complaint)]
            else:
                status = chunk.exit_code
    return status, bytes(out), complaint.decode(errors="replace").strip()


def _refuse(path: str, vm_id: VmId, status: int | None, said: str) -> NoReturn:
    known = {
        _LINK: over_a_link, _ABSENT: not_found, _FOLDER: is_a_directory, _SPECIAL: not_a_file,
        _NO_FOLDER: not_a_directory,
    }  # fmt: skip
    if status in known:
        raise known[status](path)
    if status == _FULL:
        raise full(path, said or "there is no room in the machine")
    raise Unavailable(
        f"{path} cannot be opened in {vm_id}",
        code="machine_failed",
        reason=said or f"its shell ended with {status}",
        resolution="see what is there: tt exec; the machine needs a shell and the usual small programs",
    )


async def _only(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
