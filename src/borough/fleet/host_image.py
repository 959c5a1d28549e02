"""The image ``host``: a machine made of the programs of the very host it is on.

Rules only: what of a host is shown in such a machine, and what never is. Everything that is not named here is not
there: a list of what is secret would always lack something.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

HOST_IMAGE = "host"
OWN_PROGRAMS = "/opt/borough/bin"
"""In the machine: the Python that Borough itself runs in, and Borough's commands, by names that are always the same."""
WORKSPACE = "workspace"
PROGRAM_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Shown read-only where they are folders, and links where they are links."""
EMPTY_FOLDERS: Mapping[str, int] = {
    "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o755, "root": 0o700,
    "run": 0o755, "srv": 0o755, "sys": 0o755, "tmp": 0o1777, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755,
    "var/log": 0o755, "var/tmp": 0o1777, WORKSPACE: 0o755,
}  # fmt: skip
"""The machine's own, with their modes."""
SETTINGS = (
    "alternatives", "alternatives/*", "bash.bashrc", "crypto-policies", "crypto-policies/*", "debian_version",
    "fonts", "fonts/*", "gai.conf", "host.conf", "inputrc", "java-*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "ld.so.conf.d/*", "locale.alias", "localtime", "magic", "magic.mime", "mime.types", "networks", "os-release",
    "pki", "pki/ca-trust", "pki/ca-trust/extracted", "pki/ca-trust/extracted/*", "pki/tls", "pki/tls/cert.pem",
    "pki/tls/certs", "pki/tls/certs/*", "protocols", "rpc", "services", "ssl", "ssl/cert.pem", "ssl/certs",
    "ssl/certs/*", "ssl/openssl.cnf", "terminfo", "terminfo/*", "timezone",
)  # fmt: skip
"""Of ``/etc``: what programs cannot do without and nobody keeps a secret in. ``*`` stands for all that is below."""
OWN_FILES: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
"""Not the host's: who its users are concerns no machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A folder that Borough's own Python needs, outside of the program folders."""

    path: str
    """Absolute, as programs name it; there it is shown."""
    source: str
    """Where it really is, without links."""
    readable: bool
    """By whoever is root in a machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a host looks like."""

    links: Mapping[str, str]
    """Those of ``PROGRAM_FOLDERS`` that are links, and where to."""
    folders: frozenset[str]
    """Those that are folders."""
    wishes: tuple[Wish, ...] = ()
    private: frozenset[str] = frozenset()
    """Folders that are nobody's business, such as homes and our own state: none of them is shown, nor what it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """What of a host is shown in a machine, all of it read-only."""

    shown: Mapping[str, str]
    """Where in the machine → where on the host."""
    links: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What was wished for and is not shown, and why."""


def view_of(facts: HostFacts) -> HostView:
    """Return what is shown of a host that looks like this."""
    shown = {f"/{name}": f"/{name}" for name in PROGRAM_FOLDERS if name in facts.folders}
    left_out: dict[str, str] = {}
    for wish in sorted(facts.wishes, key=lambda each: each.path):
        if any(_lies_in(wish.path, seen) for seen in shown):
            continue
        why_not = _why_not(wish, facts.private)
        if why_not is None:
            shown[wish.path] = wish.source
        else:
            left_out[wish.path] = why_not
    return HostView(shown=shown, links=dict(facts.links), left_out=left_out)


def is_setting(path: str) -> bool:
    """Tell whether a file, link or folder of ``/etc``, named from there, is copied into such machines."""
    return any(fnmatchcase(path, pattern) for pattern in SETTINGS)


def _why_not(wish: Wish, private: frozenset[str]) -> str | None:
    holds = sorted(each for each in private if _lies_in(each, wish.source))
    if holds:
        return f"it holds {holds[0]}"
    return None if wish.readable else "other users may not read it"


def _lies_in(path: str, folder: str) -> bool:
    """Tell whether an absolute path is ``folder`` or below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
