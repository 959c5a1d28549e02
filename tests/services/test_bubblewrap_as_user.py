"""Where the tests run as root, the same contracts are kept for an ordinary user, who has none of its rights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need

ROOT = Path(__file__).parents[2]
UID = 63_421
SUITES = (
    "tests/contracts/test_runner.py",
    "tests/contracts/test_sandbox_exec.py",
    "tests/contracts/test_files.py",
    "tests/contracts/test_workspaces.py",
    "tests/services/test_host_image.py",
    "tests/services/test_worker_boxes.py",
    "tests/e2e/test_borough_up_fleet.py::test_a_machine_reaches_the_server_with_a_credential_and_nothing_else_of_the_host",
    "tests/faults/escape",
    "tests/e2e/test_borough_up_fleet.py::test_an_environment_lives_from_its_beginning_to_its_end_with_nothing_configured",
)


def shown(python: Path, aside: Path) -> str:
    """A shell's line that runs the rest in a place where others can run ``python``, be it in root's home or not."""
    closed = [folder for folder in python.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return 'exec "$@"'
    return (
        f"mount --bind {python} {aside} && mount -t tmpfs -o mode=755 none {closed[-1]} && mkdir -p {python} && "
        f'mount --bind {aside} {python} && exec "$@"'
    )


@pytest.mark.parametrize("suite", SUITES)
def test_an_ordinary_user_has_the_same_contract(suite: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("it runs as an ordinary user already")
    need(shutil.which("setpriv"), "setpriv", "apt-get install util-linux")
    need(shutil.which("unshare"), "unshare", "apt-get install util-linux")
    folder = Path(f"/tmp/bx-user-{os.getpid()}")
    folder.mkdir()
    (folder / "python").mkdir()
    os.chown(folder, UID, UID)
    show = shown(Path(sys.base_prefix), folder / "python")
    packages = Path(pytest.__file__).parents[1]
    try:
        ran = subprocess.run(
            ["unshare", "--mount", "sh", "-c", show, "sh",
             "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
             sys.executable, "-P", "-m", "pytest",
             "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'run'}", suite],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{packages}", "PATH": "/usr/bin:/bin", "HOME": str(folder),
                 "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")},
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
