"""What two type checkers tell a caller who has installed the wheel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYRIGHT = {
    "extraPaths": ["site"],
    "typeCheckingMode": "standard",
    "reportUnnecessaryTypeIgnoreComment": "error",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder, away from the working tree, with a caller and what pip installs."""
    folder = tmp_path_factory.mktemp("caller")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    run(folder, *"pip install --no-build-isolation --no-deps --target site ./source".split())
    return folder


def run(folder: Path, *command: str) -> None:
    """Run a module, which is to find nothing wrong."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "site")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("checker", ["mypy --strict", "basedpyright"])
def test_a_caller_of_the_installed_wheel_is_type_checked(installed, checker):
    run(installed, *checker.split(), "typed_caller.py")
