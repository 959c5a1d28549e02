"""The same no-op jobs on dramatiq, arq and Celery, with Redis that syncs every write, in the same run as ours."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.enqueue import enqueue
from bench.figures import Figure, Section
from bench.harness import LOAD_CORE, SERVER_CORE, town
from bench.http_load import drive
from bench.work import drain

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
JOBS = 3000
AT_ONCE = 16
WITHIN_S = 180.0
NAMES = ("arq", "dramatiq", "celery")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Jobs a second: put in one after the other, and worked off by one worker process with 16 at once."""

    enqueue: float
    work: float


@contextmanager
def redis() -> Iterator[str]:
    """Start Redis on a socket of its own, every write synced; yield its address."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not here; install it with: apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "redis.sock"
        argv = [
            program, "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", "",
            "--appendonly", "yes", "--appendfsync", "always",
        ]  # fmt: skip
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
            try:
                deadline = time.monotonic() + 10
                while not path.exists():
                    if time.monotonic() > deadline:
                        raise RuntimeError("Redis did not start")
                    time.sleep(0.01)
                os.sched_setaffinity(server.pid, {LOAD_CORE})
                yield f"unix://{path}"
            finally:
                server.terminate()


def rival(name: str, url: str, folder: Path) -> Rate:
    """Measure one: its producer and its worker are programs of their own, on the core that our server gets."""
    environment = {**os.environ, "RIVAL": name, "RIVAL_REDIS": url, "RIVAL_AT_ONCE": str(AT_ONCE)}
    core = ["taskset", "-c", str(SERVER_CORE)]
    program = HERE / "rival_programs.py"
    told = subprocess.run(
        [*core, PYTHON, program, "enqueue", str(JOBS)],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    with (folder / f"{name}.log").open("wb") as log:
        worker = subprocess.Popen(
            [*core, PYTHON, program, "work"],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        watched = subprocess.run(
            [PYTHON, program, "watch", str(JOBS)],
            env=environment,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        log_end = (folder / f"{name}.log").read_text()[-3000:]
        raise RuntimeError(f"{name} did not finish: {failure}\n{log_end}") from failure
    finally:
        os.killpg(worker.pid, 15)
        try:
            worker.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, 9)
            worker.wait()
    return Rate(enqueue=JOBS / json.loads(told.stdout), work=json.loads(watched.stdout))


def version(name: str) -> str:
    lock = (HERE.parent / "requirements-bench.lock").read_text()
    found = re.search(rf"^{name}==(\S+)", lock, re.MULTILINE)
    return found[1] if found else ""


async def ours() -> Rate:
    with town() as bench:
        desk = await bench.connections(1)
        put_in = await drive(desk, JOBS // 3, enqueue)
        desk[0].close()
    with town() as bench:
        seconds = await drain(bench, count=JOBS, agents=AT_ONCE)
    return Rate(enqueue=put_in.rate, work=JOBS / seconds)


async def measure() -> Section:
    rates = {"Borough": await ours()}
    with redis() as url, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in NAMES:
            rates[f"{name} {version(name)}"] = rival(name, url, Path(folder))
    arq = next(rate for name, rate in rates.items() if name.startswith("arq"))
    figures = [
        Figure(
            what=name,
            value=f"{rate.work:,.0f} jobs/s worked off, {rate.enqueue:,.0f}/s put in",
            goal="worked off at least as fast as arq" if name == "Borough" else "",
            met=rate.work >= arq.work if name == "Borough" else None,
        )
        for name, rate in rates.items()
    ]
    return Section(
        name="rivals",
        title="Against job queues",
        how=(
            f"{JOBS} jobs that do nothing, put in one after the other, then worked off {AT_ONCE} at a time; each write "
            "is synced (`appendfsync always`). Ours goes through REST, with leases and history; the others speak to "
            "Redis themselves, acknowledge after the job, and are timed from the first finished job to the last. "
            "Our server, or their producer and worker, have one core; the store has the other."
        ),
        figures=figures,
    )
