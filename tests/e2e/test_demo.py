"""The demonstration, as a newcomer runs it: three governed agents in machines of their own, and proof at the end."""

import json
import platform
import subprocess
import sys
from pathlib import Path

from tests.e2e.daemon import ROOT


def test_three_runs_one_machine_killed_and_evidence_that_verifies(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "borough.cli.borough", "demo", "--folder", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["good"], told["left"]) == (True, [])
    runs = {run["task"].partition(" ")[0] + str(run["attempt"]): run for run in told["runs"]}
    survey, publish = runs["List2"], runs["Count1"]
    assert [one["state"] for one in (survey, publish, runs["List1"])] == ["succeeded", "succeeded", "failed"]
    assert survey["attempts"][0]["vm_id"] != survey["attempts"][1]["vm_id"]
    assert "access denied: fs.list:/workspace/tests" in runs["List1"]["result"]["answer"]
    assert {one["path"] for one in publish["result"]["files_changed"]} == {"out/report.md", "published/report.md"}
    assert publish["spent"]["tool_calls"] > 20
    assert "verified" in done.stderr
    others = {run["admission"]["engine"]: run for run in told["runs"] if run["task"].startswith("Say")}
    assert others.keys() == {engine for engine in ("docker", "qemu") if f"{engine} is not shown" not in done.stderr}
    assert [run["state"] for run in others.values()] == ["succeeded"] * len(others)
    if "qemu" in others:
        assert others["qemu"]["result"]["answer"].split()[2] != platform.release(), "a kernel of its own"
    assert told["took_s"] < 90
    assert Path(told["evidence"]).stat().st_size > 10_000
