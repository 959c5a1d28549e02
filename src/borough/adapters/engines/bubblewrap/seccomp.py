"""Which system calls an agent may make, by its trust level.

For every level some calls fail with EPERM: they change the machine, look into other processes or open large parts of
the kernel that programs hardly ever need. Trusted and privileged agents may make all others; sandboxed and untrusted
ones only those of a list that runs ordinary dynamically linked programs, Python and Node included: what is on neither
list fails with ENOSYS, on which the C library falls back to an older call. A call in the convention of another
architecture (on x86-64 also x32) kills the process, since no program that belongs here makes one.

``execve`` is always allowed: the first program could not begin otherwise, and a process that becomes another program
gains nothing. What untrusted agents do not have without ``sandbox.exec`` are further processes.
"""

from errno import EAFNOSUPPORT, ENOSYS, EPERM
from functools import lru_cache

from borough.adapters.engines.bubblewrap.bpf import ALLOW, Argument, Verdict, When, compile_filter, errno
from borough.adapters.engines.bubblewrap.syscall_numbers import NUMBERS
from borough.governance.trust import TrustLevel


def _named(words: str) -> frozenset[str]:
    return frozenset(words.split())


DENIED = _named(
    """
    _sysctl acct add_key adjtimex bpf chroot clock_adjtime clock_settime create_module delete_module
    fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl listmount
    listns lookup_dcookie migrate_pages modify_ldt mount mount_setattr move_mount move_pages name_to_handle_at
    nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise
    process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key setdomainname
    sethostname setns settimeofday statmount swapoff swapon sysfs syslog umount2 unshare uselib userfaultfd
    ustat vhangup vserver
    """
)
"""For all levels."""

ALLOWED = _named(
    """
    accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime
    clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
    faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
    flistxattr flock fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake
    futimesat get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
    getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch ioprio_get kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lseek lstat madvise
    membarrier memfd_create mincore mkdir mkdirat mlock mlock2 mlockall mmap mprotect mremap msync munlock
    munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_yield seccomp select sendfile sendmmsg sendmsg sendto
    set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
    setresgid setresuid setreuid setrlimit setsid setsockopt setuid shutdown sigaltstack signalfd signalfd4
    splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
    times tkill truncate umask uname unlink unlinkat utime utimensat utimes vmsplice wait4 waitid write writev
    """
)
"""For untrusted and sandboxed agents, besides those that are looked at more closely."""

_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | … | CLONE_NEWNET
_NAMESPACE_FLAG_BITS = tuple(bit for bit in (1 << place for place in range(32)) if bit & _NAMESPACE_FLAGS)
_CLONE_THREAD = 0x00010000
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE_MASK, _SOCK_RAW, _SOCK_PACKET = 0xF, 3, 10
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_NETLINK_ROUTE = 0
_S_IFMT = 0xF000
_DEVICES = (0x2000, 0x6000)  # S_IFCHR, S_IFBLK
_NO = errno(EPERM)


@lru_cache(maxsize=64)
def program(machine: str, trust: TrustLevel, *, processes: bool, inet: bool) -> bytes:
    """Return the filter for one architecture.

    ``processes``: whether it may start further ones (asked of untrusted agents only); ``inet``: whether it may have
    sockets of the internet's families.
    """
    numbers = NUMBERS[machine]
    verdicts = [
        verdict
        for name, verdict in _looked_at(numbers, forks=processes or trust is not TrustLevel.UNTRUSTED, inet=inet)
        if name in numbers
    ]
    verdicts += [Verdict(numbers[name], _NO) for name in sorted(DENIED) if name in numbers]
    if trust.at_least(TrustLevel.TRUSTED):
        return compile_filter(machine, verdicts, otherwise=ALLOW)
    verdicts += [Verdict(numbers[name], ALLOW) for name in sorted(ALLOWED) if name in numbers]
    return compile_filter(machine, verdicts, otherwise=errno(ENOSYS))


def _looked_at(numbers: dict[str, int], *, forks: bool, inet: bool) -> list[tuple[str, Verdict]]:
    """Return the verdicts on calls whose arguments matter, by name."""
    forked = ALLOW if forks else _NO
    clone = [When([Argument(0, bit, bit)], _NO) for bit in _NAMESPACE_FLAG_BITS]
    found: list[tuple[str, int, list[When]]] = [
        ("clone", forked, [*clone, When([Argument(0, _CLONE_THREAD, _CLONE_THREAD)], ALLOW)]),
        ("clone3", errno(ENOSYS), []),  # its flags lie in memory, where no filter sees them: libraries fall back
        ("fork", forked, []),
        ("vfork", forked, []),
        ("socket", errno(EAFNOSUPPORT), _sockets(inet=inet)),
        ("socketpair", errno(EAFNOSUPPORT), [When([Argument(0, _AF_UNIX)], ALLOW)]),
        ("ioctl", ALLOW, [When([Argument(1, request)], _NO) for request in (_TIOCSTI, _TIOCLINUX)]),
        ("personality", _NO, [When([Argument(0, value)], ALLOW) for value in (0, 0xFFFFFFFF)]),
        ("mknod", ALLOW, [When([Argument(1, kind, _S_IFMT)], _NO) for kind in _DEVICES]),
        ("mknodat", ALLOW, [When([Argument(2, kind, _S_IFMT)], _NO) for kind in _DEVICES]),
    ]
    return [(name, Verdict(numbers.get(name, -1), action, cases)) for name, action, cases in found]


def _sockets(*, inet: bool) -> list[When]:
    """Unix always; of netlink only what libraries read the box's own addresses from; never a raw one."""
    if not inet:
        return [When([Argument(0, _AF_UNIX)], ALLOW)]
    raw = [When([Argument(1, kind, _SOCK_TYPE_MASK)], _NO) for kind in (_SOCK_RAW, _SOCK_PACKET)]
    return [
        When([Argument(0, _AF_UNIX)], ALLOW),
        When([Argument(0, _AF_NETLINK), Argument(2, _NETLINK_ROUTE)], ALLOW),
        *raw,
        *(When([Argument(0, family)], ALLOW) for family in (_AF_INET, _AF_INET6)),
    ]
