"""System calls that Python's library lacks, by their numbers or through the C library. Linux only.

Only the standard library is imported: the keeper of boxes, which runs without site packages, uses this too.
"""

import ctypes
import errno
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

NS_GET_USERNS = 0xB701
"""The ioctl(2) that gives the user namespace which owns a namespace (ioctl_ns(2))."""

_IN_MODIFY = 0x02
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_OPENAT2 = 437  # the same on every architecture, as all that came after Linux 5.0
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 0x1, 0x4, 0x100000
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_RULE_PATH_BENEATH = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    """Leave namespaces for fresh ones (unshare(2))."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def set_namespace(descriptor: int) -> None:
    """Enter the namespace that ``descriptor`` stands for (setns(2))."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(0)), "setns")


def watch_changes(path: str) -> int:
    """Return a descriptor that can be read whenever something is written to a file (inotify(7)); it never blocks."""
    descriptor = _check(_libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)), "inotify")
    try:
        _check(_libc.inotify_add_watch(ctypes.c_int(descriptor), path.encode(), ctypes.c_uint32(_IN_MODIFY)), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount, bind or change a mount (mount(2))."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            None if options is None else options.encode(),
        ),
        f"mount of {target}",
    )


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give a part of a file back to the file system; it reads as zeros and the size stays (fallocate(2))."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _check(
        _libc.fallocate(ctypes.c_int(descriptor), ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length)),
        "fallocate",
    )


def unmount(target: str) -> None:
    """Take a mount away, now for the eye and for good once nobody uses it (umount2(2), MNT_DETACH)."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"unmount of {target}")


def mount_mapped(source: int, target: str, user_namespace: int) -> None:
    """Bind the open folder ``source`` to ``target``, with its owners as ``user_namespace`` maps them.

    A mount made so is "idmapped" (mount_setattr(2)): who owns a file on disk is shown as somebody else.
    """
    tree = _check(
        _libc.syscall(
            ctypes.c_long(_OPEN_TREE),
            ctypes.c_long(source),
            ctypes.c_char_p(b""),
            ctypes.c_long(_OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC),
        ),
        "open_tree",
    )
    try:
        attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
        _check(
            _libc.syscall(
                ctypes.c_long(_MOUNT_SETATTR),
                ctypes.c_long(tree),
                ctypes.c_char_p(b""),
                ctypes.c_long(_AT_EMPTY_PATH),
                ctypes.c_char_p(attributes),
                ctypes.c_size_t(len(attributes)),
            ),
            "mount_setattr",
        )
        _check(
            _libc.syscall(
                ctypes.c_long(_MOVE_MOUNT),
                ctypes.c_long(tree),
                ctypes.c_char_p(b""),
                ctypes.c_long(_AT_FDCWD),
                ctypes.c_char_p(target.encode()),
                ctypes.c_long(_MOVE_MOUNT_F_EMPTY_PATH),
            ),
            "move_mount",
        )
    finally:
        os.close(tree)


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open ``path`` from ``directory`` under the restrictions of ``resolve`` (openat2(2))."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    called = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_long(directory),
        ctypes.c_char_p(path.encode()),
        ctypes.c_char_p(how),
        ctypes.c_size_t(len(how)),
    )
    return _check(called, path)


def forbid_new_privileges() -> None:
    """From now on no execve(2) gives this process or its children more rights (PR_SET_NO_NEW_PRIVS)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def filter_system_calls(program: bytes) -> None:
    """Put this process and its children under a classic BPF program (seccomp(2))."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _check(
        _libc.prctl(
            ctypes.c_int(_PR_SET_SECCOMP),
            ctypes.c_ulong(_SECCOMP_MODE_FILTER),
            ctypes.c_char_p(head),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        ),
        "seccomp",
    )


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int, *, parent: int) -> None:
    """Get signal ``number`` when the parent's thread ends (PR_SET_PDEATHSIG); ``parent`` is its pid before the fork.

    Raises:
        ProcessLookupError: it has ended already, and nobody would send the signal any more.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, "the parent has ended")


def outlive_parent() -> None:
    """Get no signal any more when the parent ends."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def be_seen() -> None:
    """Let others of our user look into /proc at this process again: a change of user forbids it (PR_SET_DUMPABLE)."""
    _prctl(_PR_SET_DUMPABLE, 1)


def drop_capabilities() -> None:
    """Give up every capability, also as one that a program might bring (capabilities(7))."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(ctypes.c_int(_PR_CAPBSET_DROP), ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # the kernel knows no more of them
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(b"\0" * 24)), "capset")


def landlock_version() -> int:
    """Return the version of Landlock's interface, 0 where there is none (landlock_create_ruleset(2))."""
    called = _libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(called))


def landlock_ruleset(attributes: bytes) -> int:
    """Return a descriptor of a new ruleset."""
    called = _libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint32(0),
    )
    return _check(called, "landlock_create_ruleset")


def landlock_allow(ruleset: int, rights: int, path: int) -> None:
    """Allow ``rights`` beneath the open ``path``."""
    rule = struct.pack("=Qi", rights, path)
    called = _libc.syscall(
        ctypes.c_long(_LANDLOCK_ADD_RULE),
        ctypes.c_long(ruleset),
        ctypes.c_long(_LANDLOCK_RULE_PATH_BENEATH),
        ctypes.c_char_p(rule),
        ctypes.c_uint32(0),
    )
    _check(called, "landlock_add_rule")


def landlock_restrict(ruleset: int) -> None:
    """Put this process and its children under ``ruleset``; needs ``forbid_new_privileges`` first."""
    _check(
        _libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT_SELF), ctypes.c_long(ruleset), ctypes.c_uint32(0)),
        "landlock_restrict_self",
    )


def _prctl(option: int, value: int) -> None:
    _check(
        _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *(ctypes.c_ulong(0) for _ in range(3))),
        f"prctl {option}",
    )


def _check(returned: int, what: str) -> int:
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return int(returned)
