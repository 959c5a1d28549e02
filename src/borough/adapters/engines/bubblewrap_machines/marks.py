"""The mark of a process that was started before it was known whose it is: changed where others look for it."""

import ctypes

from borough.adapters.procfs import OWNER

_ENV_START, _ENV_END = 47, 48  # positions in ``stat`` after the command's closing parenthesis (proc(5), fields 50, 51)


def carry(owner: str) -> None:
    """Let this process carry another mark of the same length: in the environment that it was started with.

    The kernel shows the memory in which a process was given its environment, whatever has become of it.

    Raises:
        OSError: it carries none of that length.
    """
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - start-up time
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    given, mark = ctypes.string_at(start, end - start), f"{OWNER}={owner}\0".encode()
    at = given.find(f"{OWNER}=".encode())
    if at < 0 or given.find(b"\0", at) != at + len(mark) - 1:
        raise OSError("the nursery was not given a mark that can be changed")
    ctypes.memmove(start + at, mark, len(mark))
