"""What two type checkers tell a caller who has installed the wheel."""

import json
import shutil
from pathlib import Path

import pytest

from test_scanhub import run

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
    run(folder, "pip install --no-build-isolation --no-deps --target site ./source")
    return folder


@pytest.mark.parametrize("checker", ["mypy --strict", "basedpyright"])
def test_a_caller_of_the_installed_wheel_is_type_checked(installed, checker):
    run(installed, f"{checker} typed_caller.py")
