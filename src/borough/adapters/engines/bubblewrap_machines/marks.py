"""The mark of a process that was started before it was known whose it is: changed where others look for it."""

import ctypes
import functools

from borough.adapters.procfs import OWNER

_ENV_START, _ENV_END = 47, 48  # positions in ``stat`` after the command's closing parenthesis (proc(5), fields 50, 51)


@functools.cache
def _place() -> tuple[int, int]:
    """Return where in memory the mark begins and how many bytes it has: in a process and in all its forks the same.

    The kernel shows the memory in which a process was given its environment, whatever has become of it.
    """
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - start-up time
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    given = ctypes.string_at(start, end - start)
    at = given.find(f"{OWNER}=".encode())
    if at < 0:
        raise OSError("the nursery was not given a mark")
    return start + at, given.index(b"\0", at) - at


def look() -> None:
    """Look for the mark ahead of the forks that are to carry another; raises ``OSError`` where there is none."""
    _place()


def carry(owner: str) -> None:
    """Let this process carry another mark of the same length: in the environment that it was started with.

    Raises:
        OSError: it carries none of that length.
    """
    at, length = _place()
    mark = f"{OWNER}={owner}".encode()
    if len(mark) != length:
        raise OSError("the nursery was not given a mark that can be changed")
    ctypes.memmove(at, mark, length)
