"""What is run on machines to put the package there: units, files, one script for each. Pure functions.

A script comes over the standard input of ``sh``, whole: the package is in it, and so is the key, which goes from there
into a file of mode 0600 and is never an argument of a command. Nothing is done before all of the script has come.
"""

import base64
import hashlib
import re
import shlex
from dataclasses import dataclass, field
from typing import Final

from borough.cli.deploying import Deployment, Service, Target
from borough.core.errors import Invalid

UNITS: Final = "/etc/systemd/system"
_END: Final = "BOROUGH_END_OF_FILE"
_WHEEL_NAME: Final = re.compile(r"borough-[A-Za-z0-9.+_]+(?:-[A-Za-z0-9._]+){3}\.whl")
_RELEASE_LETTERS: Final = 16
_LINE_BYTES: Final = 57
"""Of the package, a line of base64 of 76 letters."""
_PROGRAMS: Final = ("tt", "tt-ctl", "tt-agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """The package as it travels."""

    name: str
    sha256: str
    text: str = field(repr=False)
    """Base64, in lines."""


def wheel_of(name: str, content: bytes) -> Wheel:
    """Return a wheel that was read from a file of that name.

    Raises:
        Invalid: the name is none of ours (``invalid_wheel``).
    """
    if _WHEEL_NAME.fullmatch(name) is None:
        raise Invalid(f"{name[:80]!r} is no wheel of borough", code="invalid_wheel", resolution="build it anew")
    lines = (content[start : start + _LINE_BYTES] for start in range(0, len(content), _LINE_BYTES))
    text = "\n".join(base64.b64encode(line).decode() for line in lines)
    return Wheel(name=name, sha256=hashlib.sha256(content).hexdigest(), text=text)


def unit(service: Service, prefix: str) -> str:
    """Return the systemd unit (systemd.service(5), systemd.kill(5)) of a program."""
    words = (f"{prefix}/bin/{service.name}", *service.arguments)
    return f"""[Unit]
Description=Borough {service.name}
After=network-online.target
Wants=network-online.target

[Service]
# The daemon says when it serves: a restart that has returned has worked.
Type=notify
TimeoutStartSec=300
User={service.user}
EnvironmentFile={prefix}/etc/{service.name}.env
ExecStart={" ".join(_unit_word(word) for word in words)}
Restart=on-failure
RestartSec=5
# Machines run on when the daemon is stopped or replaced, and are found again.
KillMode=process
TimeoutStopSec=60
LimitNOFILE=65536
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def environment_file(api_key: str) -> str:
    """Return the file that only the service manager reads."""
    escaped = api_key.replace("\\", "\\\\").replace('"', '\\"')
    return f'TT_API_KEY="{escaped}"\n'


def script(service: Service, made: Deployment, *, api_key: str, wheel: Wheel, start: bool = True) -> str:
    """Return what is run as root on the machine, over the standard input of ``sh``.

    Running it again changes what differs and starts the program anew. Without ``start`` everything is put there, the
    unit beside the private file, and nothing is started.
    """
    prefix, name = made.prefix, service.name
    folder, staged = f"{prefix}/etc", f"{prefix}/etc/{name}.service"
    key = environment_file(api_key) if service.has_key else ""
    steps = [
        "set -eu",
        "umask 077",
        *(_SYSTEMD if start else ()),
        _PYTHON,
        f"id -u {_q(made.user)} >/dev/null 2>&1 || useradd --system --create-home {_q(made.user)}",
        f"install -d -m 0755 {_q(prefix)} {_q(f'{prefix}/bin')} {_q(f'{prefix}/releases')}",
        f"install -d -m 0700 {_q(folder)}",
        *(f"install -d -m 0700 -o {_q(service.user)} {_q(path)}" for path in service.folders),
        _release(prefix, wheel),
        *(f"ln -sf {_q(f'{prefix}/venv/bin/{each}')} {_q(f'{prefix}/bin/{each}')}" for each in _PROGRAMS),
        _file(f"{folder}/{name}.env", key, mode="0600"),
        _file(staged, unit(service, prefix), mode="0644"),
        *(_started(name, staged) if start else ()),
    ]
    # In a function: a script that does not come whole does nothing, and what it runs does not read the rest of it.
    return "\n".join(["deploy() {", *steps, "}", "deploy </dev/null", ""])


_SYSTEMD: Final = ("test -d /run/systemd/system || { echo 'this machine is not run by systemd' >&2; exit 3; }",)
_PYTHON: Final = """python=
for each in python3 python3.14 python3.13 python3.12 python3.11; do
if "$each" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
then python=$each; break; fi
done
test -n "$python" || { echo 'no Python 3.11 or later here: apt-get install python3 python3-venv' >&2; exit 4; }"""


def _release(prefix: str, wheel: Wheel) -> str:
    """Return the steps that make the package's own environment, unless it is there, and let it be the present one.

    Each wheel has a folder of its own: one that fails halfway leaves what runs alone, and what still runs from the one
    before (the keepers of machines) keeps its files.
    """
    release = f"{prefix}/releases/{wheel.sha256[:_RELEASE_LETTERS]}"
    return f"""release={_q(release)}
if ! {{ test -e "$release/complete" && "$release/bin/python" -c 'import borough'; }} 2>/dev/null; then
rm -rf "$release"
from=$(mktemp -d)
trap 'rm -rf "$from"' EXIT
base64 -d > "$from/{wheel.name}" <<'{_END}'
{wheel.text}
{_END}
(cd "$from" && echo '{wheel.sha256}  {wheel.name}' | sha256sum -c - >&2)
"$python" -m venv "$release"
"$release/bin/python" -m pip install --quiet --disable-pip-version-check "$from/{wheel.name}"
chmod -R go+rX "$release"
: > "$release/complete"
fi
ln -sfn "$release" {_q(f"{prefix}/venv")}"""


def _started(name: str, staged: str) -> tuple[str, ...]:
    return (
        f"install -m 0644 {_q(staged)} {_q(f'{UNITS}/{name}.service')}",
        "systemctl daemon-reload",
        f"systemctl enable --quiet {_q(name)}",
        f"systemctl restart {_q(name)} || {{ journalctl --no-pager -n 20 -u {_q(name)} >&2; exit 5; }}",
    )


def ssh_argv(target: Target, *, config: str | None = None, known_only: bool = False) -> list[str]:
    """Return the command that runs a script, given on standard input, as root on a machine.

    A machine's key is remembered when it is first seen, unless ``known_only``; no other is accepted afterwards
    (ssh_config(5)). ``config`` is a file of the user's in the place of the usual one.
    """
    checking = "yes" if known_only else "accept-new"
    options = ["-o", "BatchMode=yes", "-o", f"StrictHostKeyChecking={checking}", "-o", "ConnectTimeout=10"]
    sudo = [] if target.ssh_user == "root" else ["sudo", "-n"]
    whose = [] if config is None else ["-F", config]
    who = ["-p", str(target.ssh_port), "-l", target.ssh_user]
    return ["ssh", "-T", *whose, *options, *who, "--", target.host, *sudo, "sh", "-s"]


def invite_text(service: Service, prefix: str) -> str:
    """Return how a host says with which command it is joined, to be run there as root."""
    data = service.arguments[service.arguments.index("--data-dir") + 1]
    return f"{prefix}/bin/tt-agent --invite --data-dir {data}"


def _file(path: str, content: str, *, mode: str) -> str:
    draft = _q(f"{path}.new")
    return "\n".join(
        [
            f"cat > {draft} <<'{_END}'",
            f"{content.rstrip()}",
            _END,
            f"chmod {mode} {draft}",
            f"mv -f {draft} {_q(path)}",
        ]
    )


def _unit_word(word: str) -> str:
    """Return a word as systemd reads it back (systemd.syntax(7)): quoted, without specifiers or variables."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _q(word: str) -> str:
    return shlex.quote(word)
