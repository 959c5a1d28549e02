"""``tt save``, ``restore``, ``reset``, ``migrate``: a town as a whole."""

import fcntl
import os
import stat
import tarfile
import time
from pathlib import Path
from typing import Any, Final

import click

from borough.cli.commands import command
from borough.cli.errors import Failed
from borough.cli.output import confirmed, output, say
from borough.cli.session import connect, start_server, town_folder
from borough.cli.text import size
from borough.cli.tt_server import end_server
from borough.client.discovery import SERVER_FILE, STATE_FOLDER, TOWN_FILE, read_record

_DATA_LOCK: Final = "data.lock"
"""Held by every process that works on the embedded store's data."""
_PASSING: Final = frozenset({SERVER_FILE, "autostart.lock", _DATA_LOCK, "socket.path"})
"""Files that speak of running processes only."""
_STAYS: Final = "fleet"
"""What of the state folder is this machine's and no town's: its machines run on, whatever becomes of the town."""
_STORE_ENDS_WITHIN_S: Final = 15.0


@command("save", example="tt save mytown.tar.gz\ntt save --stop mytown.tar.gz")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--stop", "may_stop", is_flag=True, help="Stop a running server for it, and start it again.")
def save(*, file: Path, may_stop: bool) -> None:
    """Back the town up into a file.

    Settings, tasks, history, logs, credentials go in; so only you can read the file. The fleet's machines, their disks
    and images do not. The server has to rest meanwhile.
    """
    town = town_folder()
    _refuse_external(town)
    was_running = _rest(town, may_stop=may_stop)
    try:
        count = _pack(town, file)
    finally:
        if was_running:
            start_server(town)
    document = {"file": str(file), "bytes": file.stat().st_size, "entries": count}
    output().show(document, lambda: output().line(f"saved {count} files in {file} ({size(file.stat().st_size)})"))


@command("restore", example="tt restore mytown.tar.gz --town /srv/mytown")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("-y", "--yes", "--force", "yes", is_flag=True, help="Replace the town that is in this folder.")
def restore(*, file: Path, yes: bool) -> None:
    """Bring a town back from a file.

    A town that is in this folder is kept beside it as .tt.before-TIME, and replaced only with --yes. Its fleet stays.
    """
    from borough.cli.commands import invocation

    folder = Path(invocation().town).absolute()
    if (folder / STATE_FOLDER).exists() or (folder / TOWN_FILE).exists():
        if not (yes or confirmed(f"Replace the town in {folder}?")):
            raise Failed(
                f"nothing was restored: there is a town in {folder}",
                code="not_confirmed",
                reason="it would be replaced",
                resolution="repeat with --yes; the old one is kept beside it",
            )
        _rest(folder, may_stop=False)
        _put_aside(folder)
    count = _unpack(file, folder)
    document = {"town": str(folder), "entries": count}
    output().show(document, lambda: output().line(f"restored {count} files into {folder}"))


@command("reset", example="tt reset --agents-only\ntt reset --force")
@click.option("--force", is_flag=True, help="Do it without a question.")
@click.option("--agents-only", is_flag=True, help="Only agents and their inboxes; tasks stay.")
def reset(*, force: bool, agents_only: bool) -> None:
    """Delete all work, or only the agents.

    Without --force it shows what would go and asks for the town's name.
    """
    with connect() as server:
        status = server.get("/v1/status", {"deep": True})
        tasks = sum((status.get("tasks") or {}).values())
        what = f"{status['agent_count']} agents" + ("" if agents_only else f", {tasks} tasks and all history")
        if not (force or confirmed(f"This deletes {what} of the town {status['name']}.", word=status["name"])):
            raise Failed(
                f"nothing was deleted: {what} would go",
                code="not_confirmed",
                reason="this cannot be undone, and it was not confirmed",
                resolution="repeat with --force; 'tt save FILE' keeps a copy first",
            )
        done = server.post("/v1/reset", {"confirm": status["name"], "agents_only": agents_only})
    output().show(done, lambda: output().line(f"{done['removed']} records deleted"))


@command("migrate", example="tt migrate redis://127.0.0.1:6379 --name mytown --dry-run")
@click.argument("url")
@click.option("--name", metavar="TOWN", help="The other town's name.  [default: this town's]")
@click.option("--dry-run", is_flag=True, help="Only show what would come over.")
def migrate(*, url: str, name: str | None, dry_run: bool) -> None:
    """Bring the unfinished tasks of a town on another Redis server into this one.

    They go to the backlog, in their order. The other town is only read; each task comes over once, however often
    this runs.
    """
    from borough.adapters.tinytown import read_unfinished

    with connect() as server:
        town = name or str(server.get("/v1/town")["name"])
        found = read_unfinished(url, town)
        rows: list[dict[str, Any]] = []
        for task in found:
            tag = f"from:{task.id}"
            there = server.get("/v1/tasks", {"tag": tag, "limit": 1})["tasks"]
            row = {"from": task.id, "task_id": there[0]["task_id"] if there else None, "description": task.description}
            if not there and not dry_run:
                body = {"description": task.description, "tags": [*task.tags, tag]}
                row["task_id"] = server.post("/v1/backlog", body)["task_id"]
            rows.append({**row, "what": "there already" if there else "would come" if dry_run else "came over"})
    out = output()
    out.show(
        {"town": town, "dry_run": dry_run, "tasks": rows},
        lambda: out.table(
            ("was", "what", "task", "description"),
            [(row["from"], row["what"], row["task_id"], row["description"]) for row in rows],
            empty=f"the town {town!r} there has no unfinished tasks",
        ),
    )


def _refuse_external(town: Path) -> None:
    from borough.config.global_file import load_settings

    if not load_settings(town, os.environ).store.embedded:
        raise Failed(
            "this town's work is kept by a server of its own",
            code="external_store",
            reason="REDIS_URL or [redis] in tinytown.toml names it, so its files are not in .tt",
            resolution="back that server up with its own means",
        )


def _rest(town: Path, *, may_stop: bool) -> bool:
    """Make sure that nothing writes into the town's state; return whether a server was stopped for it."""
    record = read_record(town)
    if record is not None and not may_stop:
        raise Failed(
            "the town's server runs",
            code="server_running",
            reason="its files change while it runs",
            resolution="stop it with 'tt stop --server' first; 'tt save' also takes --stop",
        )
    if record is not None:
        end_server(town)
    deadline = time.monotonic() + _STORE_ENDS_WITHIN_S
    while _store_works(town):
        if time.monotonic() > deadline:
            raise Failed(
                "the town's store still runs",
                code="store_running",
                reason="its server was ended by force and left it behind",
                resolution="run 'tt start' and then 'tt stop --server'",
            )
        time.sleep(0.05)
    return record is not None


def _store_works(town: Path) -> bool:
    return any(_is_locked(path) for path in _state_of(town) if path.name == _DATA_LOCK)


def _state_of(town: Path) -> list[Path]:
    """Return everything in the state folder that is the town's."""
    kept = [path for path in sorted((town / STATE_FOLDER).glob("*")) if path.name != _STAYS]
    return [each for path in kept for each in (path, *([] if path.is_symlink() else sorted(path.rglob("*"))))]


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _pack(town: Path, file: Path) -> int:
    partial = file.with_name(f".{file.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    count = 0
    with os.fdopen(descriptor, "wb") as raw:
        with tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for path in (town / TOWN_FILE, *_state_of(town)):
                mode = path.lstat().st_mode
                inside = path.relative_to(town)
                if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and inside.name not in _PASSING:
                    archive.add(path, arcname=str(inside), recursive=False)
                    count += stat.S_ISREG(mode)
        raw.flush()
        os.fsync(raw.fileno())
    partial.replace(file)
    return count


def _put_aside(folder: Path) -> None:
    aside = folder / f"{STATE_FOLDER}.before-{time.strftime('%Y%m%dT%H%M%S')}"
    aside.mkdir(mode=0o700)
    for name in (STATE_FOLDER, TOWN_FILE):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    fleet = aside / STATE_FOLDER / _STAYS
    if fleet.exists():
        (folder / STATE_FOLDER).mkdir(mode=0o700)
        fleet.rename(folder / STATE_FOLDER / _STAYS)
    say(f"the old town is kept in {aside}")


def _unpack(file: Path, folder: Path) -> int:
    try:
        with tarfile.open(file, "r:gz") as archive:
            members = archive.getmembers()
            foreign = [one.name for one in members if one.name.split("/")[0] not in {TOWN_FILE, STATE_FOLDER}]
            if foreign or not any(one.name == TOWN_FILE for one in members):
                raise _not_ours(file, f"it holds {foreign[0]!r}" if foreign else f"it holds no {TOWN_FILE}")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STATE_FOLDER).mkdir(mode=0o700, exist_ok=True)
            archive.extractall(folder, filter="data")
    except tarfile.TarError as problem:
        raise _not_ours(file, str(problem)) from problem
    return sum(one.isfile() for one in members)


def _not_ours(file: Path, why: str) -> Failed:
    return Failed(
        f"{file} is not a saved town",
        code="not_a_backup",
        reason=why,
        resolution="name a file that 'tt save' has written",
    )
