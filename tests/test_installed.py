"""The module where it is used: as the one file inside ScanHub, and installed elsewhere.

The stand-in of ScanHub's library is the bundled models; like it, it ignores unknown fields.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import exam_models
import exam_requests
from calls import META, NEWER, task

ROOT = Path(__file__).parent.parent

# ScanHub's own settings of its static checks.
RUFF = """
line-length = 120
target-version = "py310"
[lint]
select = ["E", "W", "F", "S", "I", "N", "D"]
pydocstyle.convention = "numpy"
"""
MYPY = """
[mypy]
python_version = 3.13
warn_unreachable = True
check_untyped_defs = True
ignore_missing_imports = True
"""
HANDLER = """
from app.api.exam_requests import get_task

def handler(task_id: str, token: str) -> str:
    task = get_task(task_id, token)
    return task.name + task.nmae
"""


def library(folder, models):
    """Put a library of the name of ScanHub's into a folder."""
    package = folder / "scanhub_libraries"
    package.mkdir()
    (package / "__init__.py").touch()
    if models is not None:
        (package / "models.py").write_text(models)


@pytest.fixture
def scanhub(tmp_path):
    """Return a folder with the module at its place in a device manager, and ScanHub's library."""
    api = tmp_path / "app" / "api"
    api.mkdir(parents=True)
    for package in (tmp_path / "app", api):
        (package / "__init__.py").write_text('"""Device manager."""\n')
    source = Path(exam_requests.__file__).read_text()
    (api / "exam_requests.py").write_text(source)
    page = (ROOT / "docs" / "scanhub.md").read_text()
    imports, *code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1:]
    upload = "\n\n".join(['"""Upload."""\n\n' + imports, *code])
    (api / "upload.py").write_text(upload)
    models = Path(exam_models.__file__).read_text()
    library(tmp_path, models.replace('extra="allow"', 'extra="ignore"'))
    (tmp_path / "ruff.toml").write_text(RUFF)
    (tmp_path / "mypy.ini").write_text(MYPY)
    return tmp_path


def run(folder, module, status=0):
    """Run a module that finds this folder's, and what pip installed, but not the working tree."""
    paths = [str(folder), str(folder / "site"), *(path for path in sys.path if "site-p" in path)]
    done = subprocess.run(
        [sys.executable, "-S", "-m", *module.split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def test_the_file_passes_scanhubs_static_checks_and_a_misspelt_field_does_not(scanhub):
    run(scanhub, "ruff check app")
    (scanhub / "handler.py").write_text(HANDLER)
    told = run(scanhub, "mypy app handler.py", status=1)
    (error,) = [line for line in told.splitlines() if "error:" in line]
    assert error.startswith('handler.py:6: error: "AcquisitionTaskOut" has no attribute "nmae"')


def test_scanhubs_models_are_used_and_keep_the_fields_that_they_know(scanhub):
    held = task()
    held["results"][0]["meta"] = META
    (scanhub / "script.py").write_text(f"""
import json, responses
from app.api import exam_requests as exam
from scanhub_libraries import models
for name in ("AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"):
    assert getattr(exam, name) is getattr(models, name)
assert exam._logger.name == "app.api.exam_requests"
held = json.loads({json.dumps(json.dumps(held | NEWER))})
with responses.RequestsMock() as mock:
    mock.get(exam.TASK_URI + "/1", json=held)
    task = exam.get_task("1", "token")
    task.status, task.progress = models.ItemStatus.FINISHED, 100
    task.calibration = [models.CalibrationType.FLIPANGLE]
    mock.put(exam.TASK_URI + "/1", json=held)
    exam.set_task("1", task, "token")
    print(mock.calls[1].request.body.decode())
""")
    done = run(scanhub, "script")
    changed = {"status": "FINISHED", "progress": 100, "calibration": ["flip-angle"]}
    assert json.loads(done) == held | changed


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ("import no_such_module", ModuleNotFoundError, "No module named 'no_such_module'"),
        ("raise ValueError('broken')", ValueError, "broken"),
        ("", ImportError, "cannot import name 'AcquisitionTaskOut'"),
        (None, ModuleNotFoundError, "No module named 'scanhub_libraries.models'"),
    ],
)
def test_a_scanhub_library_that_fails_to_import_is_an_error(
    tmp_path, models, error, message, monkeypatch
):
    library(tmp_path, models)
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules), pytest.raises(error, match=message):
        runpy.run_path(exam_requests.__file__)


# The upload of docs/scanhub.md.

SCRIPT = """
import asyncio, logging, sys
from pathlib import Path
from app.api import upload

task_id, token, data_lake = sys.argv[1:]

async def main():
    for pieces, size in (([b"what ", b"was"], 8), ([b"what"], 9), ([b"what", None], 9)):
        try:
            print(await upload.upload(task_id, pieces, size, Path(data_lake), token))
        except TypeError:
            print("broken off")
    upload.exam_requests.set_result = lambda *_: 1 / 0
    try:
        await upload.upload(task_id, [b"measured"], 8, Path(data_lake), token)
    except ZeroDivisionError:
        print("not recorded")

logging.basicConfig(format="%(message)s")
asyncio.run(main())
"""


def test_the_upload_for_scanhub_deletes_what_is_incomplete_and_nothing_else(
    scanhub, exam_manager, tmp_path, monkeypatch
):
    (scanhub / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("EXAM_MANAGER_URL", exam_manager.url)
    lake = tmp_path / "lake"
    told = run(scanhub, f"script {exam_manager.task_id} {exam_manager.token} {lake}").splitlines()
    kept = {path.parent.name: path.read_bytes() for path in lake.rglob("raw.*")}
    assert {kept[result_id]: held["type"] for result_id, held in exam_manager.results.items()} == {
        b"what was": "MRD",
        b"measured": "NOT_SET",
    }
    assert len(kept) == len([*lake.iterdir()]) == 2
    unrecorded = next(path for path in lake.rglob("raw.mrd") if path.read_bytes() == b"measured")
    log = f"Result {unrecorded.parent.name} is not recorded: {unrecorded}"
    assert told == ["stored", "wrong size", "broken off", log, "not recorded"]


# Elsewhere.

PYRIGHT = dict(typeCheckingMode="standard", reportUnnecessaryTypeIgnoreComment="error")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder, away from the working tree, with a caller and what pip installs."""
    folder = tmp_path_factory.mktemp("caller")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", folder)
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": ["site"], **PYRIGHT}))
    run(folder, "pip install --no-build-isolation --no-deps --target site ./source")
    return folder


@pytest.mark.parametrize("checker", ["mypy --strict", "basedpyright"])
def test_a_caller_of_the_installed_wheel_is_type_checked(installed, checker):
    run(installed, f"{checker} typed_caller.py")
