"""Verifying an export of the ledger that is a file, on all cores: each checks a part, and the parts are joined.

A part begins after some line, and is bound to what that line says; whether it says the truth, the part before finds
out. Checking is hashing of short texts, during which Python lets no other thread work, so every core but one gets a
process of its own: this module, started as a program, reads what to check as JSON from standard input and writes what
it found to standard output.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

import orjson

from borough.adapters import process
from borough.governance.checkpoints import VerifierKey
from borough.governance.merkle import CompleteNode
from borough.governance.verification import (
    LONGEST_LINE_BYTES,
    Broken,
    Link,
    NotWhole,
    Part,
    Proven,
    check_part,
    conclude,
    join_parts,
    read_header,
    verify_export,
)

MOST_NOTE_BYTES: Final = 262_144
"""More than the longest checkpoint takes; what follows the entries is never read beyond it."""
LEAST_PART_BYTES: Final = 8 * 1024 * 1024
"""A smaller part is checked sooner than a process is started for it."""
_LEAF: Final = re.compile(rb"[0-9a-f]{64} ")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Whole lines of a file, and what the first is to be bound to."""

    begin: int
    end: int
    first_line: int
    link: Link


def verify_stream(stream: IO[bytes], key: VerifierKey | None) -> Proven | Broken:
    """Verify an export while it comes in; takes little memory, whatever comes."""
    return verify_export(_bounded_lines(stream), key)


def verify_file(
    path: Path, key: VerifierKey | None, *, processes: int | None = None, least_part_bytes: int = LEAST_PART_BYTES
) -> Proven | Broken:
    """Verify an export in a file with at most ``processes`` processes (``None``: one a core), this one among them.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        most = processes or len(os.sched_getaffinity(0))
        size = os.fstat(file.fileno()).st_size
        count = min(most, size // least_part_bytes)
        entries_end = _entries_end(file, size) if count > 1 else None
        if entries_end is None:
            file.seek(0)
            return verify_stream(file, key)
        file.seek(0)
        try:
            start = read_header(file.readline(LONGEST_LINE_BYTES))
            link = Link(seq=start.size, hash=start.hash, leaf=start.leaf)
            spans = _spans(file, link, entries_end, count)
            end = join_parts(start, _check_all(path, spans))
        except NotWhole as found:
            return found.broken
        file.seek(entries_end + 1)
        return conclude(start, end, file.read(MOST_NOTE_BYTES), key)


def _bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(LONGEST_LINE_BYTES):
        yield line
        if line == b"\n":
            yield stream.read(MOST_NOTE_BYTES)
            return


def _entries_end(file: IO[bytes], size: int) -> int | None:
    """Return where the empty line after the last entry is; ``None`` when it has to be searched for."""
    begin = max(0, size - MOST_NOTE_BYTES)
    file.seek(begin)
    # The checkpoint itself has an empty line too: the first one counts, and entries have none.
    found = file.read(MOST_NOTE_BYTES).find(b"\n\n")
    return None if found < 0 else begin + found + 1


def _spans(file: IO[bytes], link: Link, end: int, count: int) -> list[_Span]:
    """Cut what lies between here and ``end`` into about ``count`` parts of whole lines."""
    begin, first_seq = file.tell(), link.seq
    cuts = {begin: _Span(begin=begin, end=end, first_line=2, link=link)}
    for number in range(1, count):
        file.seek(begin + (end - begin) * number // count)
        file.readline(LONGEST_LINE_BYTES)  # the rest of a line
        line = file.readline(LONGEST_LINE_BYTES)
        before = _link_after(line)
        if before is not None and begin < file.tell() < end:
            at, first_line = file.tell(), before.seq - first_seq + 2
            cuts[at] = _Span(begin=at, end=end, first_line=first_line, link=before)
    ordered = sorted(cuts.values(), key=lambda span: span.begin)
    ends = [after.begin for _, after in pairwise(ordered)] + [end]
    return [
        _Span(begin=span.begin, end=until, first_line=span.first_line, link=span.link)
        for span, until in zip(ordered, ends, strict=True)
    ]


def _link_after(line: bytes) -> Link | None:
    """Return what ``line`` says that the next entry is bound to; ``None`` where it does not: no part begins there."""
    try:
        fields = orjson.loads(line[65:])
        seq, hash_ = fields["seq"], fields["hash"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if type(seq) is not int or type(hash_) is not str or not _LEAF.match(line):
        return None
    return Link(seq=seq + 1, hash=hash_, leaf=line[:64].decode())


def _check_all(path: Path, spans: list[_Span]) -> list[Part]:
    """Check the first part here and the others elsewhere; the first broken part raises ``NotWhole``."""
    with ExitStack() as undo:
        workers = []
        for span in spans[1:]:
            workers.append(_start(path, span))
            undo.callback(_end, workers[-1])
        parts = [_check(path, spans[0])]
        for worker, span in zip(workers, spans[1:], strict=True):
            parts.append(_result(worker, path, span))
            if parts[-2].link != span.link:
                raise NotWhole(_altered(span))
        return parts


def _check(path: Path, span: _Span) -> Part:
    with path.open("rb") as file:
        file.seek(span.begin)
        return check_part(_lines_until(file, span), span.link, first_line=span.first_line)


def _lines_until(file: IO[bytes], span: _Span) -> Iterator[bytes]:
    left = span.end - span.begin
    while left > 0:
        line = file.readline(min(left, LONGEST_LINE_BYTES))
        if not line:
            raise NotWhole(_altered(span))
        left -= len(line)
        yield line


def _altered(span: _Span) -> Broken:
    reason = "the file was changed while it was read"
    return Broken(part="entry", seq=span.link.seq, line=span.first_line, reason=reason)


# -- the other processes -----------------------------------------------------------------------------------------------


def _start(path: Path, span: _Span) -> process.Child:
    child = process.start(
        [sys.executable, "-I", "-m", "borough.adapters.verifying"],
        env={},
        stdin=process.PIPE,
        stdout=process.PIPE,
        stderr=process.NOTHING,
    )
    assert child.popen.stdin is not None  # noqa: S101 - it was asked for
    child.popen.stdin.write(json.dumps({"path": os.fspath(path.absolute()), "span": asdict(span)}).encode())
    child.popen.stdin.close()
    return child


def _end(child: process.Child) -> None:
    if child.poll() is None:
        child.kill()
        child.wait()
    assert child.popen.stdout is not None  # noqa: S101 - it was asked for
    child.popen.stdout.close()


def _result(child: process.Child, path: Path, span: _Span) -> Part:
    assert child.popen.stdout is not None  # noqa: S101 - it was asked for
    told = child.popen.stdout.read()
    if child.wait() != 0 or not told:
        return _check(path, span)  # it was ended, or could not start: its part is checked here
    found: dict[str, Any] = json.loads(told)
    if "broken" in found:
        raise NotWhole(Broken(**found["broken"]))
    nodes = (
        CompleteNode(level=level, place=place, hash=bytes.fromhex(hash_)) for level, place, hash_ in found["nodes"]
    )
    return Part(link=Link(**found["link"]), nodes=tuple(nodes))


def main() -> None:
    """Check the part that standard input names and write what was found."""
    asked = json.load(sys.stdin)
    span = _Span(**{**asked["span"], "link": Link(**asked["span"]["link"])})
    try:
        part = _check(Path(asked["path"]), span)
    except NotWhole as found:
        told: dict[str, object] = {"broken": asdict(found.broken)}
    else:
        nodes = [(node.level, node.place, node.hash.hex()) for node in part.nodes]
        told = {"link": asdict(part.link), "nodes": nodes}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
