"""How soon a program in a box says its first word, against bare bubblewrap with the same view and nothing else.

Bare means: no filter, no Landlock, no limits, no control groups, no record, no gate. Both are started from this
process; the box through the keeper, which runs already, as it does in a daemon.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, Section, median, milliseconds, percentile
from borough.adapters.engines.bubblewrap import argv, plans, skeleton
from borough.adapters.engines.bubblewrap.argv import BoxView
from borough.adapters.engines.bubblewrap.engine import Bubblewrap, build
from borough.adapters.engines.bubblewrap.making import BoxMaker
from borough.adapters.engines.bubblewrap.plans import BoxOrder
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.core.ids import AgentId, new_id
from borough.governance.manifests import Manifest, Runtime
from borough.governance.ports.outside import Execution
from borough.governance.trust import TrustLevel

ROUNDS = 60
GOAL = 3.0
MANIFEST = Manifest(name="measured", version="1.0.0", trust_level=TrustLevel.SANDBOXED)
WORDS = ("/bin/sh", "-c", "echo up")


def bare(folder: Path) -> list[str]:
    """The same namespaces and mounts, without what the keeper adds."""
    (folder / "workspace").mkdir(exist_ok=True)
    view = BoxView(
        workspace=str(folder / "workspace"), skeleton=str(folder / "state/skeleton"), binds=(), extra=(), private=(),
        tmp_bytes=1 << 26, shm_bytes=1 << 26, hostname="box",
    )  # fmt: skip
    words = argv.arguments(skeleton.system(), view)
    for option in ("--seccomp", "--json-status-fd"):
        at = words.index(option)
        del words[at : at + 2]
    return words


def first_word_of_bare(program: str, words: list[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen([program, *words, "--", *WORDS], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.read(1)
        took = time.perf_counter() - began
        started.stdout.read()
    return took


async def first_word_of_box(maker: BoxMaker, workspace: str, identity: tuple[int, int] | None, folder: Path) -> float:
    read, write = os.pipe()
    name = new_id()
    began = time.perf_counter()
    order = BoxOrder(
        box=name, owner=f"bench:{name}", manifest=MANIFEST, runtime=Runtime.RUST, argv=WORDS,
        env=plans.environment(MANIFEST, {}, sdk=False), workspace=workspace, identity=identity, lasts=False,
        at_once=True, record=folder / "end.json",
    )  # fmt: skip
    async with maker.opened(order, {"stdout": write}) as running:
        await maker.go(running)
        os.close(write)
        assert os.read(read, 1)
        took = time.perf_counter() - began
        await maker.end(running)
    os.close(read)
    return took


async def whole(made: Bubblewrap, agent_id: AgentId) -> float:
    began = time.perf_counter()
    result = await made.sandbox.execute(
        Execution(agent_id=agent_id, manifest=MANIFEST, runtime="sh", code="echo up", timeout_s=10)
    )
    assert result.stdout == "up\n"
    return time.perf_counter() - began


async def measure() -> Section:
    bares, boxes, wholes = [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as told:
        folder = Path(told).resolve()
        made = build(BoxSettings(state=folder / "state"))
        try:
            await made.runner.probe()
            agent_id = AgentId(new_id())
            await made.workspaces.create(agent_id, MANIFEST)
            maker = made.sandbox.maker
            identity = plans.identity_of(agent_id) if (await maker.hello()).rooted else None
            workspace = await made.sandbox.mounts.path_for_boxes(agent_id)
            program, words = str(made.keeper.program), bare(folder)
            for _ in range(ROUNDS):
                bares.append(first_word_of_bare(program, words))
                boxes.append(await first_word_of_box(maker, workspace, identity, folder))
                wholes.append(await whole(made, agent_id))
            await made.workspaces.discard(agent_id)
        finally:
            await made.close()
    ratio = median(boxes) / median(bares)
    return Section(
        name="sandbox",
        title="Boxes",
        how=f"Median of {ROUNDS} rounds, in turns: from the order to the first byte that `echo` in a shell prints. "
        "Bare `bwrap` has the same namespaces and mounts, and no filter, Landlock, limits, control groups or gate.",
        figures=[
            Figure(what="bare `bwrap`", value=milliseconds(median(bares))),
            Figure(what="a box, fully confined", value=milliseconds(median(boxes))),
            Figure(what="ratio", value=f"{ratio:.2f}", goal=f"≤ {GOAL:.0f}", met=ratio <= GOAL),
            Figure(what="`sandbox.exec` from call to result", value=milliseconds(median(wholes))),
            Figure(what="the same, p95", value=milliseconds(percentile(wholes, 95))),
        ],
    )
