"""What runs inside the machine beside the command: a small script for any POSIX shell, and what it leaves in files.

The command must outlive the server and the connection that started it. So the script detaches itself, keeps what the
command prints, and writes its exit code last; whoever asks later reads these files.
"""

from collections.abc import Mapping, Sequence
from typing import Final

WORKSPACE: Final = "/workspace"
FOLDER: Final = ".borough"
"""In the workspace; never part of a patch."""
PLACE: Final = f"{WORKSPACE}/{FOLDER}"
ANSWER_FILE: Final = f"{PLACE}/answer"
MCP_FILE: Final = f"{PLACE}/mcp.json"
"""How agent CLIs are told of the agent's tools; the key itself stays in the environment."""
NOT_STARTED: Final = "absent"

LOOKS_EVERY_S: Final = 0.02
"""How soon is seen what the command printed: files of a layered disk tell nobody that they grow."""

_DETACHED: Final = """
d=$1; limit=$2; shift 2
cd "$d/.." || exit 71
trap '' HUP
"$@" </dev/null >>"$d/log" 2>&1 9>&- &
child=$!
( exec 9>&- >/dev/null 2>&1 </dev/null
  trap 'kill $nap 2>/dev/null; exit 0' TERM
  sleep "$limit" & nap=$!; wait $nap && : > "$d/overdue" && kill -KILL "$child" ) &
guard=$!
wait "$child"; code=$?
kill "$guard" 2>/dev/null
printf %s "$code" > "$d/exit"
"""
"""Runs the command in a session of its own, and outlives whoever started it: its process is the command's own sign of
life. It holds ``done`` open as long as it lives, so that its end is heard of without asking again and again.
"""

_FOLLOW: Final = f"""
d=$1; from=$2; every={LOOKS_EVERY_S}
tail -s $every -c 0 /dev/null 2>/dev/null || every=1
if [ -p "$d/done" ] && [ ! -s "$d/exit" ]; then
  exec 7<>"$d/done" 8<"$d/done" 7>&-
  tail -s $every -c +"$from" -f "$d/log" 8<&- & reader=$!
  read -r nothing <&8
  kill "$reader" 2>/dev/null
else
  tail -s $every -c +"$from" -f "$d/log" & reader=$!
  while [ ! -s "$d/exit" ] && kill -0 "$(cat "$d/pid")" 2>/dev/null; do sleep 1; done
  kill "$reader" 2>/dev/null
fi
exit 0
"""
_STATE: Final = """
d=$1; pid=; token=; code=--; late=--; lives=gone
[ -s "$d/token" ] || { printf absent; exit 0; }
read -r token < "$d/token"
[ ! -s "$d/exit" ] || read -r code < "$d/exit"
[ ! -e "$d/overdue" ] || late=overdue
[ ! -s "$d/pid" ] || read -r pid < "$d/pid"
if kill -0 "$pid" 2>/dev/null; then lives=alive; fi
printf '%s\\n%s\\n%s\\n%s' "$token" "$code" "$late" "$lives"
"""
_READY: Final = f"mkdir -p {WORKSPACE} || exit 71\n{_STATE}"
_REST: Final = 'tail -c +"$2" "$1/log"'
_CLONE: Final = """
cd "$1" || exit 71
ref=${3:-HEAD}
export GIT_TERMINAL_PROMPT=0
command -v git >/dev/null 2>&1 || { echo "there is no git in this image" >&2; exit 69; }
git init -q . || exit $?
git fetch -q --depth 1 "$2" "$ref" 2>/dev/null && exec git checkout -q --detach FETCH_HEAD
rm -rf .git && git init -q . || exit $?
git fetch -q "$2" "$ref" 2>/dev/null && exec git checkout -q --detach FETCH_HEAD
git fetch -q "$2" '+refs/*:refs/remotes/origin/*' && exec git checkout -q --detach "$ref"
"""
"""A remote that only hands out files gives no less than all of it; one commit among others is not given by itself."""
_STARTED: Final = f"""
detached=$0; d=$1; token=$2; limit=$3; shift 3
[ -d "$d" ] || mkdir -p "$d" || exit 71
if ( set -C; : > "$d/claim" ) 2>/dev/null; then
  mkfifo "$d/done" 2>/dev/null
  [ ! -p "$d/done" ] || exec 9<>"$d/done"
  : > "$d/log"
  [ -z "$BOROUGH_MCP_URL" ] || printf '%s"url": "%s", %s' '{{"mcpServers": {{"borough": {{"type": "http", ' \\
    "$BOROUGH_MCP_URL" '"headers": {{"Authorization": "Bearer ${{BOROUGH_KEY}}"}}}}}}}}' > "$d/mcp.json"
  if command -v setsid >/dev/null 2>&1; then
    setsid sh -c "$detached" sh "$d" "$limit" "$@" </dev/null >/dev/null 2>&1 &
  else
    sh -c "$detached" sh "$d" "$limit" "$@" </dev/null >/dev/null 2>&1 &
  fi
  printf %s "$!" > "$d/pid"
  printf %s "$token" > "$d/token"
fi
tries=0
while [ ! -s "$d/token" ] && [ $tries -lt 100 ]; do sleep 0.02 2>/dev/null || sleep 1; tries=$((tries + 1)); done
set -- "$d"
{_STATE}"""
"""The first to make ``claim`` starts the command; whoever comes second finds it started, and tells which start won."""


def start_argv(command: Sequence[str], *, token_name: str, timeout_s: int) -> tuple[str, ...]:
    """Return what starts ``command`` inside, once, and tells how it stands, for ``read_state``."""
    return ("sh", "-c", _STARTED, _DETACHED, PLACE, token_name, str(timeout_s), *command)


def follow_argv(offset: int) -> tuple[str, ...]:
    """Return what prints the log from ``offset`` bytes on, and ends when the command has."""
    return ("sh", "-c", _FOLLOW, "sh", PLACE, str(offset + 1))


def rest_argv(offset: int) -> tuple[str, ...]:
    """Return what prints the log as it is, from ``offset`` bytes on."""
    return ("sh", "-c", _REST, "sh", PLACE, str(offset + 1))


def state_argv() -> tuple[str, ...]:
    """Return what tells how it stands, for ``read_state``."""
    return ("sh", "-c", _STATE, "sh", PLACE)


def ready_argv() -> tuple[str, ...]:
    """Return what makes the workspace and tells how it stands, for ``read_state``."""
    return ("sh", "-c", _READY, "sh", PLACE)


def clone_argv(url: str, ref: str | None) -> tuple[str, ...]:
    """Return what brings a git remote into the workspace."""
    return ("sh", "-c", _CLONE, "sh", WORKSPACE, url, *(() if ref is None else (ref,)))


class Inside:
    """How the command stands inside, as the script's files say."""

    __slots__ = ("alive", "exit_code", "overdue", "token_name")

    def __init__(self, token_name: str | None, exit_code: int | None, *, overdue: bool, alive: bool) -> None:
        self.token_name = token_name
        """Which start won; ``None``: nothing was started yet."""
        self.exit_code = exit_code
        self.overdue = overdue
        self.alive = alive

    @property
    def is_started(self) -> bool:
        """Tell whether the command was started."""
        return self.token_name is not None

    @property
    def is_lost(self) -> bool:
        """Tell whether it was started, does not run, and nobody wrote how it ended."""
        return self.is_started and self.exit_code is None and not self.alive


def read_state(text: str) -> Inside:
    """Return what ``state_argv`` printed."""
    if text.strip() == NOT_STARTED:
        return Inside(None, None, overdue=False, alive=False)
    lines = [*text.split("\n"), "", "", "", ""]
    token, code, overdue, alive = lines[:4]
    return Inside(token, int(code) if code.isdecimal() else None, overdue=overdue == "overdue", alive=alive == "alive")


def environment_of(
    task: str, *, run_id: str, agent_id: str, attempt: int, key: str, server: str | None
) -> Mapping[str, str]:
    """Return what the command finds in its environment; the credential is there and nowhere else."""
    told = {
        "BOROUGH_TASK": task,
        "SCARAB_TASK": task,  # the two are what programs of governed agents look for, borough.agent among them
        "SCARAB_AGENT_ID": agent_id,
        "BOROUGH_RUN": run_id,
        "BOROUGH_ATTEMPT": str(attempt),
        "BOROUGH_ANSWER": ANSWER_FILE,
        "BOROUGH_KEY": key,
        "HOME": WORKSPACE,
    }
    if server is None:
        return told
    return told | {"BOROUGH_URL": server, "BOROUGH_MCP_URL": f"{server}/mcp", "BOROUGH_MCP_CONFIG": MCP_FILE}
