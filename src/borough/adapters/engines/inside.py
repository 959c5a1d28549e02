"""What is done inside a machine by its own shell: commands, files, folders. Any way to run a command will do.

A command line cannot be read by others of the host, and so carries nothing of what is asked: the shell inside reads it
from the first bytes of its input. What is asked for is quoted as a whole; a marker in the environment finds all that a
command started when it is to be ended.
"""

import shlex
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, Stream

MARKER = "BOROUGH_EXEC"
"""Environment variable inside a machine of everything that one command started."""
ABSENT, WRONG_KIND = 66, 65
"""Exit statuses of our own scripts: no such file; a folder where a file is meant, or the other way round."""
_MOST_WORDS = 2000
_MOST_LISTING_BYTES = 16 << 20

Shell = Callable[[str, AsyncIterator[bytes]], AsyncGenerator[Chunk, None]]
"""Runs a script in a shell inside, as root, with that input."""


def script_of(order: ExecOrder, token: str) -> str:
    """Return the script that runs what is asked for."""
    lines = [f"export {MARKER}={token}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in order.env.items()]
    if order.tty is not None:
        rows, columns = order.tty
        lines.append(f"stty rows {rows} cols {columns} 2>/dev/null")
    if order.cwd is not None:
        lines.append(f"cd {shlex.quote(order.cwd)} || exit 126")
    words = shlex.join(order.argv)
    if order.user not in (None, "root"):
        words = f"su -s /bin/sh {shlex.quote(str(order.user))} -c {shlex.quote(words)}"
    # Not in place of the shell: of a command that a signal ends, SSH tells no number, and a shell does.
    return "\n".join([*lines, words, "exit $?"])


def starter(script: str) -> str:
    """Return the command that reads ``script`` from its input, exactly, and runs it with what follows as input."""
    return f"sh -c 'eval \"$(dd bs=1 count={len(script.encode())} 2>/dev/null)\"'"


async def after(script: str, stdin: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a script and then the input that is meant for what it runs."""
    yield script.encode()
    async for part in stdin:
        yield part


def ending(token: str) -> str:
    """Return the script that ends everything that carries ``token``: first gently, then by force."""
    return f"""{_looking(token)}
tell() {{ for each in $(look); do kill -$1 $each 2>/dev/null; done; }}
tell TERM; for turn in 1 2 3 4 5; do [ -z "$(look)" ] && exit 0; sleep 0.2; done; tell KILL; exit 0"""


def resizing(token: str, rows: int, columns: int) -> str:
    """Return the script that gives the terminal of what carries ``token`` another size."""
    return f"""{_looking(token)}
for each in $(look); do
  if [ -e /proc/self/fd ]; then at="$(readlink /proc/$each/fd/0)"; else at="/dev/$(ps -o tty= -p $each)"; fi
  case "$at" in /dev/*) stty rows {rows} cols {columns} <"$at" 2>/dev/null && exit 0;; esac
done; exit 0"""


def _looking(token: str) -> str:
    """Return what defines ``look``, which prints the processes that carry ``token``."""
    # Threads of the kernel have no program; busybox' grep does not look past a zero byte.
    carries = f"[ -e $each/exe ] && tr '\\0' '\\n' <$each/environ 2>/dev/null | grep -qx {MARKER}={token}"
    by_proc = f"for each in /proc/[0-9]*; do {carries} && echo ${{each#/proc/}}; done"
    # FreeBSD has no /proc by default, and its ps tells what others started with.
    is_it = f"case $rest in *{MARKER}={token}*) echo $pid;; esac"
    by_ps = f"ps -axeww -o pid= -o command= | while read -r pid rest; do {is_it}; done"
    return f"look() {{ if [ -e /proc/self/environ ]; then {by_proc}; else {by_ps}; fi; }}"


async def listing(shell: Shell, path: str) -> Sequence[FileEntry]:
    """Return a folder's names; raises ``NotFound`` (``file_not_found``)."""
    name = shlex.quote(path)
    script = (
        f"cd -- {name} 2>/dev/null || {{ [ -e {name} ] && exit {WRONG_KIND}; exit {ABSENT}; }}\n"
        'for each in * .*; do case "$each" in .|..) continue;; esac\n'
        '[ -e "$each" ] || [ -L "$each" ] || continue\n'
        # As GNU and busybox have it, and as FreeBSD has it.
        'about="$(stat -c "%f %s %Y" -- "$each" 2>/dev/null || stat -f "%Xp %z %m" -- "$each")"\n'
        'printf "%s %s\\0" "$about" "$each"; done'
    )
    told = await gather(shell(script, only()), path, most_bytes=_MOST_LISTING_BYTES)
    return sorted((_entry(path, record) for record in told.split(b"\0") if record), key=lambda entry: entry.name)


async def read(shell: Shell, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
    """Yield a file, or a folder as a tar archive; raises ``NotFound``, ``Conflict`` (``not_a_file``)."""
    name = shlex.quote(path)
    if as_tar:
        script = (
            f"[ -e {name} ] || exit {ABSENT}\n"
            f"if [ -d {name} ]; then exec tar -C {name} -cf - .; fi\n"
            f'exec tar -C "$(dirname -- {name})" -cf - -- "$(basename -- {name})"'
        )
    else:
        script = f"[ -e {name} ] || exit {ABSENT}\n[ -d {name} ] && exit {WRONG_KIND}\nexec cat -- {name}"
    async with aclosing(_checked(shell(script, only()), path)) as parts:
        async for part in parts:
            yield part


async def write(shell: Shell, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
    """Write a file whole or not at all, or unpack an archive into a folder; return how many bytes came."""
    name = shlex.quote(path)
    if from_tar:
        script = f"mkdir -p -- {name} && exec tar -C {name} -xf -"
    else:
        script = (
            f"[ -d {name} ] && exit {WRONG_KIND}\n"
            f'mkdir -p -- "$(dirname -- {name})" && draft="$(mktemp -- {name}.XXXXXX)" || exit 1\n'
            f"trap 'rm -f -- \"$draft\"' EXIT\n"
            f'mode="$(stat -c %a -- {name} 2>/dev/null || stat -f %Lp -- {name} 2>/dev/null)"\n'
            f'owner="$(stat -c %u:%g -- {name} 2>/dev/null || stat -f %u:%g -- {name} 2>/dev/null)"\n'
            f'chmod "${{mode:-644}}" "$draft"; [ -z "$owner" ] || chown "$owner" "$draft"\n'
            f'cat >"$draft" && mv -f -- "$draft" {name}'
        )
    counted = _Counting(content)
    await gather(shell(script, counted.parts()), path, most_bytes=_MOST_WORDS)
    return counted.bytes


async def gather(chunks: AsyncGenerator[Chunk, None], path: str, *, most_bytes: int) -> bytes:
    """Return all that a script printed; raises what its end means."""
    parts: list[bytes] = []
    async with aclosing(_checked(chunks, path)) as printed:
        async for part in printed:
            parts.append(part)
            if sum(map(len, parts)) > most_bytes:
                raise Unavailable(f"{path} is too much to be told", code="engine_failed", resolution="read it as tar")
    return b"".join(parts)


async def _checked(chunks: AsyncGenerator[Chunk, None], path: str) -> AsyncGenerator[bytes, None]:
    words = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.stream is Stream.STDOUT:
                yield chunk.data
            elif chunk.stream is Stream.STDERR:
                words = (words + chunk.data)[-_MOST_WORDS:]
            elif chunk.exit_code == ABSENT:
                raise NotFound(f"there is no {path} in the machine", code="file_not_found")
            elif chunk.exit_code == WRONG_KIND:
                raise Conflict(f"{path} is of another kind: file or folder", code="not_a_file")
            elif chunk.exit_code != 0:
                raise Unavailable(
                    f"{path}: {words.decode(errors='replace').strip() or f'exit status {chunk.exit_code}'}",
                    code="engine_failed",
                    resolution="see whether the machine has room, and sh, tar and stat",
                )


class _Counting:
    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content = content
        self.bytes = 0

    async def parts(self) -> AsyncIterator[bytes]:
        async for part in self._content:
            self.bytes += len(part)
            yield part


def _entry(folder: str, record: bytes) -> FileEntry:
    mode, size, modified, name = record.decode(errors="surrogateescape").split(" ", 3)
    is_dir = stat.S_ISDIR(int(mode, 16))
    return FileEntry(
        name=name,
        path=f"{folder.rstrip('/')}/{name}",
        is_dir=is_dir,
        size=0 if is_dir else int(size),
        modified=datetime.fromtimestamp(int(modified), UTC),
    )


async def only(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield these parts: an input that is known."""
    for part in parts:
        yield part
