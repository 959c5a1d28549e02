"""The attempts: each a piece of Python that prints ESCAPED when it gets what it must not get.

What it needs to know of its surroundings is in ``P``; ``call`` makes a system call by number and raises ``OSError``.
Where an attempt would harm the machine on which the control runs, it asks for something that is refused only *after*
the right to do it was checked: being refused for another reason than that right, or for a missing call, is a success.
"""

from dataclasses import dataclass

PRELUDE = """
import ctypes, errno, json, mmap, os, platform, resource, select, signal, socket, stat, struct, sys, time
P = json.loads(os.environ["P"])
X86 = platform.machine() == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    found = libc.syscall(ctypes.c_long(number), *[
        ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def library(name, *arguments):
    found = getattr(libc, name)(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found
def beyond_the_check(function, *arguments):
    try:
        function(*arguments)
    except OSError as failure:
        if failure.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
def fill(path, size):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while size > 0:
        size -= os.write(file, b"x" * min(size, 1 << 20))
    os.close(file)
def escaped():
    print("ESCAPED", flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way out."""

    name: str
    code: str
    root: bool = True
    """Whether its control needs root."""
    x86: bool = False
    landlock: bool = False
    """Whether it stays within the box, so that only Landlock is there to stop it."""
    groups: bool = False
    """Whether only control groups stop it: they alone count what many processes use together."""


def _attempt(
    name: str, code: str, *, root: bool = False, x86: bool = False, landlock: bool = False, groups: bool = False
) -> Attempt:
    return Attempt(name=name, code=code.strip("\n"), root=root, x86=x86, landlock=landlock, groups=groups)


FILES = [
    _attempt("read a host file", "if open(P['secret']).read() == P['word']: escaped()"),
    _attempt("read the shadow file", "if ':' in open('/etc/shadow').read(): escaped()", root=True),
    _attempt("read another agent's workspace", "if open(P['other']).read() == P['word']: escaped()"),
    _attempt("list the daemon's state folder", "if os.listdir(P['state']): escaped()"),
    _attempt("write outside the workspace", "open(P['outside'] + '/made', 'w').write('x'); escaped()"),
    _attempt(
        "rename out of the workspace",
        "open('inner','w').close(); os.rename('inner', P['outside'] + '/renamed'); escaped()",
    ),
    _attempt("hard-link a host file into the workspace", "os.link(P['secret'], 'linked'); escaped()"),
    _attempt(
        "hard-link out of the workspace", "open('inner','w').close(); os.link('inner', P['outside'] + '/l'); escaped()"
    ),
    _attempt(
        "read through a symbolic link",
        "os.symlink(P['secret'], 'lnk'); \nif open('lnk').read() == P['word']: escaped()",
    ),
    _attempt(
        "climb out with dots",
        "up = '../' * 30\nif open(up + P['secret'].lstrip('/')).read() == P['word']: escaped()",
    ),
    _attempt("write to the system's programs", "if os.access('/usr', os.W_OK): escaped()", root=True),
    _attempt("write to /etc", "if os.access('/etc', os.W_OK): escaped()", root=True),
    _attempt("write to the root folder", "if os.access('/', os.W_OK): escaped()", root=True),
    _attempt("make a device node", "os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3)); escaped()", root=True),
    _attempt("make a block device", "os.mknod('disk', stat.S_IFBLK | 0o666, os.makedev(254, 0)); escaped()", root=True),
    _attempt("open the kernel's log device", "os.open('/dev/kmsg', os.O_RDONLY); escaped()", root=True),
    _attempt("open a disk", "os.open(P['disk'], os.O_RDONLY); escaped()", root=True),
    _attempt("write a core pattern", "os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY); escaped()", root=True),
    _attempt("write a kernel setting", "os.open('/proc/sys/vm/overcommit_memory', os.O_WRONLY); escaped()", root=True),
    _attempt("steer interrupts", "os.open('/proc/irq/default_smp_affinity', os.O_WRONLY); escaped()", root=True),
    _attempt("write to control groups", "os.open(P['group'] + '/cgroup.procs', os.O_WRONLY); escaped()", root=True),
    _attempt("read the kernel's own view", "if os.listdir('/sys/kernel'): escaped()"),
    _attempt(
        "open a file by its handle",
        """
handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
mounted = ctypes.c_int()
call(303 if X86 else 264, -100, P['secret'].encode(), handle, ctypes.byref(mounted), 0)
folder = os.open('/', os.O_RDONLY)
found = call(304 if X86 else 265, folder, handle, os.O_RDONLY)
if os.read(found, 99).decode() == P['word']: escaped()
""",
        root=True,
    ),
]

PROCESSES = [
    _attempt(
        "see a process of the host", "if P['victim_word'] in open(f\"/proc/{P['victim']}/cmdline\").read(): escaped()"
    ),
    _attempt("signal a process of the host", "os.kill(P['victim'], 0); escaped()"),
    _attempt("get a handle of a host's process", "os.pidfd_open(P['victim']); escaped()"),
    _attempt("trace a process of the host", "library('ptrace', 0x4206, P['victim'], 0, 0); escaped()"),
    _attempt("let oneself be traced", "library('ptrace', 0, 0, 0, 0); escaped()"),
    _attempt(
        "read another process's memory",
        """
here = ctypes.create_string_buffer(8)
local = struct.pack('PN', ctypes.addressof(here), 8)
call(310 if X86 else 270, os.getpid(), local, 1, local, 1, 0)
escaped()
""",
    ),
    _attempt(
        "open the first process's memory",
        "open('/proc/' + str(P['first']) + '/mem', 'rb'); escaped()",
        root=True,
        landlock=True,
    ),
    _attempt(
        "open the first process's root",
        "os.listdir('/proc/' + str(P['first']) + '/root/'); escaped()",
        root=True,
        landlock=True,
    ),
    _attempt(
        "open the first process's environment",
        "open('/proc/' + str(P['first']) + '/environ', 'rb').read(); escaped()",
        root=True,
        landlock=True,
    ),
    _attempt(
        "take a descriptor of another process",
        "found = os.pidfd_open(P['victim'] if os.path.exists(f\"/proc/{P['victim']}\") else 1)\n"
        "call(438, found, 0, 0); escaped()",
        root=True,
    ),
    _attempt(
        "compare kernel objects of processes", "call(312 if X86 else 272, os.getpid(), os.getpid(), 0, 0, 0); escaped()"
    ),
    _attempt("raise the priority", "os.setpriority(os.PRIO_PROCESS, 0, -5); escaped()", root=True),
    _attempt(
        "take real-time priority", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); escaped()", root=True
    ),
    _attempt("become root", "os.setuid(0)\nif os.getuid() == 0: escaped()", root=True),
    _attempt(
        "raise a hard limit", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, P['files'] * 2)); escaped()", root=True
    ),
    _attempt(
        "take capabilities back",
        """
call(126 if X86 else 91, struct.pack('Ii', 0x20080522, 0),
     struct.pack('6I', 1 << 21, 1 << 21, 0, 0, 0, 0))
escaped()
""",
        root=True,
    ),
    _attempt("turn off the randomness of addresses", "if library('personality', 0x0040000) >= 0: escaped()"),
    _attempt(
        "call the kernel as a 32-bit program",
        """
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
if ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0: escaped()
""",
        x86=True,
    ),
    _attempt(
        "find inherited descriptors",
        """
left = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)]
if max(left) > 2: escaped()
""",
    ),
    _attempt(
        "find the daemon's environment",
        """
for process in ('self', os.getppid(), 1, 2):
    if os.path.exists(f'/proc/{process}/environ') and os.access(f'/proc/{process}/environ', os.R_OK):
        try:
            told = open(f'/proc/{process}/environ', errors='replace').read()
        except OSError:
            continue
        if P['env_drow'][::-1] in told: escaped()
""",
    ),
    _attempt(
        "find a secret among the visible environments",
        "if os.environ.get('DAEMON_SECRET') == P['env_drow'][::-1]: escaped()",
    ),
]

KERNEL = [
    _attempt("mount", "library('mount', b'none', b'/tmp', b'tmpfs', 0, None); escaped()", root=True),
    _attempt(
        "remount the system writable",
        "library('mount', b'none', b'/', None, 0x20 | 0x1000, None); escaped()",
        root=True,
    ),
    _attempt("unmount", "beyond_the_check(library, 'umount2', b'/no/such/place', 8); escaped()", root=True),
    _attempt("mount the new way", "call(430, b'tmpfs', 0); escaped()", root=True),
    _attempt("clone a mount", "call(428, -100, b'/', 1); escaped()", root=True),
    _attempt(
        "change a mount's flags", "beyond_the_check(call, 442, -100, b'/', 0, bytes(32), 32); escaped()", root=True
    ),
    _attempt("make a user namespace", "library('unshare', 0x10000000); escaped()"),
    _attempt("make a mount namespace", "library('unshare', 0x00020000); escaped()", root=True),
    _attempt("make a network namespace", "library('unshare', 0x40000000); escaped()", root=True),
    _attempt(
        "clone into a user namespace",
        """
child = call(56 if X86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
if child == 0: os._exit(0)
os.waitpid(child, 0)
escaped()
""",
    ),
    _attempt(
        "clone the new way into a user namespace",
        """
child = call(435, struct.pack('8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)
if child == 0: os._exit(0)
os.waitpid(child, 0)
escaped()
""",
    ),
    _attempt(
        "enter a namespace", "library('setns', os.open('/proc/self/ns/net', os.O_RDONLY), 0); escaped()", root=True
    ),
    _attempt("change the root folder", "os.chroot('/tmp'); escaped()", root=True),
    _attempt("swap the root folder", "beyond_the_check(call, 155 if X86 else 41, b'/', b'/'); escaped()", root=True),
    _attempt("add a key to a keyring", "call(248 if X86 else 217, b'user', b'borough-test', b'x', 1, -1); escaped()"),
    _attempt("read a keyring", "call(250 if X86 else 219, 0, -3, 1); escaped()"),
    _attempt("ask for a key", "beyond_the_check(call, 249 if X86 else 218, b'user', b'none', 0, 0); escaped()"),
    _attempt(
        "load a BPF program",
        "call(321 if X86 else 280, 0, struct.pack('5I', 2, 4, 4, 1, 0) + bytes(100), 72); escaped()",
        root=True,
    ),
    _attempt(
        "watch performance events",
        "a = struct.pack('IIQ', 1, 112, 0) + bytes(96)\ncall(298 if X86 else 241, a, 0, -1, -1, 0); escaped()",
        root=True,
    ),
    _attempt("use io_uring", "call(425, 4, ctypes.create_string_buffer(120)); escaped()"),
    _attempt("handle page faults", "call(323 if X86 else 282, 0x800 | 1); escaped()"),
    _attempt("load another kernel", "beyond_the_check(call, 246 if X86 else 104, 0, 0, 0, 0); escaped()", root=True),
    _attempt("load a module", "beyond_the_check(call, 313 if X86 else 273, -1, b'', 0); escaped()", root=True),
    _attempt(
        "unload a module", "beyond_the_check(call, 176 if X86 else 106, b'no-such-module', 0x800); escaped()", root=True
    ),
    _attempt("reboot", "beyond_the_check(call, 169 if X86 else 142, 1, 2, 3, 0); escaped()", root=True),
    _attempt("stop swapping", "beyond_the_check(library, 'swapoff', b'/no/such/file'); escaped()", root=True),
    _attempt(
        "account for processes", "beyond_the_check(call, 163 if X86 else 89, b'/no/such/file'); escaped()", root=True
    ),
    _attempt("ask for quotas", "beyond_the_check(call, 443, 0, 0x800001 << 8, 0, 0); escaped()"),
    _attempt(
        "read the kernel's log", "library('klogctl', 3, ctypes.create_string_buffer(99), 99); escaped()", root=True
    ),
    _attempt(
        "name the host",
        "name = socket.gethostname().encode()\nlibrary('sethostname', name, len(name)); escaped()",
        root=True,
    ),
    _attempt("adjust the clock", "library('clock_adjtime', 0, bytes(208)); escaped()"),
    _attempt(
        "set the clock", "beyond_the_check(call, 227 if X86 else 112, 3, struct.pack('qq', 0, 0)); escaped()", root=True
    ),
    _attempt("open the machine's ports", "call(173, 0x80, 1, 1); escaped()", root=True, x86=True),
    _attempt("change segment tables", "call(154, 0, ctypes.create_string_buffer(64), 64); escaped()", x86=True),
    _attempt(
        "type into the terminal",
        """
import fcntl, pty
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, 0x5412, b'x')
escaped()
""",
        root=True,
    ),
    _attempt("watch all files", "call(300 if X86 else 262, 0, 0); escaped()", root=True),
]

NETWORK = [
    _attempt("open a raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); escaped()", root=True),
    _attempt("open a packet socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); escaped()", root=True),
    _attempt("open the kernel's event socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15); escaped()"),
    _attempt("open the audit socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9); escaped()"),
    _attempt(
        "open another family's socket",
        "socket.socket(P['family'], socket.SOCK_SEQPACKET if P['family'] == 38 else socket.SOCK_STREAM); escaped()",
    ),
    _attempt(
        "reach an abstract Unix socket", "socket.socket(socket.AF_UNIX).connect('\\0' + P['abstract']); escaped()"
    ),
    _attempt("reach the operators' socket", "socket.socket(socket.AF_UNIX).connect(P['operators']); escaped()"),
    _attempt("reach the host's loopback", "socket.create_connection(('127.0.0.1', P['tcp']), 2); escaped()"),
    _attempt("reach the host's loopback by IPv6", "socket.create_connection(('::1', P['tcp6']), 2); escaped()"),
    _attempt("reach the host by its address", "socket.create_connection((P['address'], P['tcp']), 2); escaped()"),
    _attempt(
        "send a datagram to the host",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
        "s.sendto(b'ping', ('127.0.0.1', P['udp']))\nif s.recv(9) == b'pong': escaped()",
    ),
    _attempt(
        "ask the host's name server",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
        "question = b'\\x12\\x34\\x01\\x00\\x00\\x01' + bytes(6) + b'\\x04evil\\x04test\\x00\\x00\\x01\\x00\\x01'\n"
        "s.sendto(question, (P['address'], P['udp']))\n"
        "if s.recv(99): escaped()",
    ),
    _attempt(
        "reach the metadata address",
        "socket.create_connection(('169.254.169.254', P['metadata']), 2); escaped()",
        root=True,
    ),
    _attempt(
        "see the host's interfaces", "if P['interface'] in [name for _, name in socket.if_nameindex()]: escaped()"
    ),
    _attempt("see the host's routes", "if len(open('/proc/net/route').read().splitlines()) > 1: escaped()"),
    _attempt("see the host's connections", "if f\"{P['tcp']:04X}\" in open('/proc/net/tcp').read(): escaped()"),
]

SHARED = [
    _attempt("attach a host's shared memory", "at = libc.shmat(P['shm'], None, 0)\nif at != -1: escaped()"),
    _attempt("reach a host's semaphores", "library('semctl', P['sem'], 0, 12); escaped()"),
    _attempt("reach a host's message queue", "library('msgget', P['msg'], 0); escaped()"),
    _attempt(
        "open a host's POSIX queue",
        "rt = ctypes.CDLL('librt.so.1', use_errno=True)\nif rt.mq_open(P['mq'].encode(), os.O_RDONLY) >= 0: escaped()",
    ),
    _attempt(
        "open a host's shared file in memory", "if open('/dev/shm/' + P['shmfile']).read() == P['word']: escaped()"
    ),
]

FLOODS = [
    _attempt(
        "fork without end",
        """
children = []
try:
    while len(children) < 120:
        child = os.fork()
        if child == 0:
            time.sleep(60); os._exit(0)
        children.append(child)
    escaped()
finally:
    for child in children: os.kill(child, 9)
""",
    ),
    _attempt(
        "leave zombies without end",
        """
for _ in range(120):
    if os.fork() == 0: os._exit(0)
escaped()
""",
    ),
    _attempt(
        "start threads without end",
        """
import threading
stop = threading.Event()
try:
    for _ in range(120): threading.Thread(target=stop.wait, daemon=True).start()
    escaped()
finally:
    stop.set()
""",
    ),
    _attempt("take all memory", "kept = b'x' * (P['memory'] * 2); escaped()"),
    _attempt(
        "take all memory by many processes",
        """
ends = []
for _ in range(4):
    r, w = os.pipe()
    if os.fork() == 0:
        kept = bytearray(b'x') * (P['memory'] // 2)
        os.write(w, b'k'); time.sleep(1.5); os._exit(0)
    os.close(w); ends.append(r)
if all(os.read(r, 1) for r in ends): escaped()
""",
        groups=True,
    ),
    _attempt(
        "take all memory by sharing it",
        "kept = mmap.mmap(-1, P['memory'] * 2)\nfor at in range(0, P['memory'] * 2, 4096): kept[at] = 1\nescaped()",
    ),
    _attempt(
        "fill the folder of temporary files",
        "fill(P['tmp'] + '/fill', P['tmp_bytes'] + 1); escaped()",
    ),
    _attempt(
        "fill the shared memory",
        """
name = '/dev/shm/fill' + str(os.getpid())
try:
    fill(name, P['shm_bytes'] + 1)
    escaped()
finally:
    os.unlink(name)
""",
    ),
    _attempt("write one file without end", "fill('fill', P['file_bytes'] + 1); escaped()"),
    _attempt(
        "fill the disk with many files",
        """
for number in range(8):
    fill(f'part{number}', P['file_bytes'] // 2)
    time.sleep(0.25)
escaped()
""",
    ),
    _attempt(
        "open files without end", "kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(P['files'] + 1)]; escaped()"
    ),
    _attempt(
        "lock memory without end",
        """
size = 16 << 20
kept = mmap.mmap(-1, size)
library('mlock', ctypes.addressof(ctypes.c_char.from_buffer(kept)), size)
escaped()
""",
        root=True,
    ),
    _attempt(
        "write /dev itself full",
        "open('/dev/fill' + str(os.getpid()), 'w').write('x'); os.unlink('/dev/fill' + str(os.getpid())); escaped()",
        root=True,
    ),
]

ATTEMPTS = [*FILES, *PROCESSES, *KERNEL, *NETWORK, *SHARED, *FLOODS]

CONTROL = """
if os.geteuid() == 0:
    library('unshare', 0x00020000 | 0x04000000)
    library('mount', b'none', b'/', None, 0x4000 | 0x40000, None)
    assert os.readlink('/proc/self/ns/mnt') != P['mounts']
"""
"""What every control begins with: what it mounts or names is its own, so that it changes nothing on this machine."""

METADATA = """
import fcntl, threading
library('unshare', 0x40000000)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'lo', 1))
address = struct.pack('16sHH4s8x', b'lo', socket.AF_INET, 0, socket.inet_aton('169.254.169.254'))
fcntl.ioctl(s, 0x8916, address)
listening = socket.socket()
listening.bind(('169.254.169.254', P['metadata']))
listening.listen()
"""
"""For the control of the metadata address: a network of its own in which something answers there."""

SETTINGS = {"reach the metadata address": METADATA}
"""What a control has to set up first."""
