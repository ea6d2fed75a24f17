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
import textwrap
from pathlib import Path
from unittest.mock import patch

import pytest

import exam_models
import exam_requests
from calls import META, NEWER, task

ROOT = Path(__file__).parent.parent

# ScanHub's own settings of its static checks.
RUFF = "ruff check --isolated --line-length 120 --target-version py310 --select E,W,F,S,I,N,D"
RUFF += " --config lint.pydocstyle.convention='numpy'"
MYPY = "mypy --python-version 3.13 --warn-unreachable --check-untyped-defs --ignore-missing-imports"
HANDLER = """
from app.api.exam_requests import get_task

def handler(task_id: str, token: str) -> str:
    task = get_task(task_id, token)
    return task.name + task.nmae
"""


# What stands around the code of docs/scanhub.md.
IMPORTS = '"""Upload."""\n\nimport asyncio\n'
CALLS = '''
async def calls(task_id: str, sequence_id: str, user_access_token: str) -> object:
    """Make the calls."""
'''


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
    task, sequence, imports, upload = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    calls = CALLS + textwrap.indent(f"{task}{sequence}return task, sequence, repeat\n", "    ")
    (api / "upload.py").write_text("\n\n".join([f"{IMPORTS}{imports}", upload, calls]))
    uploads = (ROOT / "examples" / "uploads.py").read_text()
    for old, new in re.findall("'s/\\^(.*)/(.*)/'", page):
        uploads = uploads.replace(f"\n{old} ", f"\n{new} ")
    (api / "uploads.py").write_text(uploads)
    models = Path(exam_models.__file__).read_text()
    library(tmp_path, models.replace('extra="allow"', 'extra="ignore"'))
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
    run(scanhub, f"{RUFF} app")
    (scanhub / "handler.py").write_text(HANDLER)
    told = run(scanhub, f"{MYPY} app handler.py", status=1)
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
import logging, socket, sys, threading, uvicorn
from contextlib import suppress
from pathlib import Path
from uuid import UUID
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from websockets.sync.client import connect
from app.api import upload, uploads

task_id, token = sys.argv[1:]
app = FastAPI()

@app.websocket("/{folder}")
async def device(websocket: WebSocket, folder: str) -> None:
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            size = await websocket.receive_json()
            await upload.upload(websocket, UUID(task_id), size, Path(folder).absolute(), token)
            await websocket.send_text("next")

def refuse(*_):
    raise HTTPException(403, "refused")

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
config = uvicorn.Config(app, ws="websockets-sansio", log_config=None, lifespan="off")
listener, server = socket.create_server(("127.0.0.1", 0)), uvicorn.Server(config)
thread = threading.Thread(target=server.run, args=[[listener]])
thread.start()
for folder in ("lake", "script.py"):
    with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/{folder}") as device:
        for size, *pieces in ((8, b"what ", b"was"), (9, b"what ", b"was it"), (8, b"measured")):
            device.send(str(size))
            for piece in pieces:
                device.send(piece)
            while (told := device.recv()) != "next":
                print(told, flush=True)
            uploads.exam.set_result = refuse if size == 9 else uploads.exam.set_result
        device.send("8")
        device.send(b"cut")
server.should_exit = True
thread.join()
"""


def test_the_upload_for_scanhub_records_what_is_complete_and_tells_the_device_what_is_not(
    scanhub, exam_manager, monkeypatch
):
    (scanhub / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("EXAM_MANAGER_URL", exam_manager.url)
    told = run(scanhub, f"script {exam_manager.task_id} {exam_manager.token}")
    task = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    home = scanhub / "lake" / str(task.workflow_id) / str(task.id)
    recorded, blank = task.results
    files = {home / str(recorded.id) / name for name in ("raw.mrd", "device_parameter.json")}
    assert {Path(recorded.directory, name) for name in recorded.files} == files
    kept = home / str(blank.id) / "raw.mrd"
    files |= {kept, kept.with_name("device_parameter.json")}
    assert files == {path for path in (scanhub / "lake").rglob("*") if path.is_file()}
    assert not list((scanhub / "lake").glob("*.part"))
    feedback = re.findall('{"command":"feedback","message":"(.*)"}', told)
    assert feedback[:2] == ["wrong size", "stored, but not recorded: refused"]
    assert len(feedback) == 5  # Three times there was no folder to write to.
    assert f"ERROR Task {task.id} is not recorded: {kept}: refused\n" in told


# Elsewhere.

PIP = "pip install --no-build-isolation --no-deps --target"
PYRIGHT = {"typeCheckingMode": "standard", "reportUnnecessaryTypeIgnoreComment": "error"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Return a folder, away from the working tree, with its source and a caller."""
    folder = tmp_path_factory.mktemp("caller")
    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", folder)
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": ["site"], **PYRIGHT}))
    return folder


def test_a_caller_of_the_installed_wheel_is_type_checked(elsewhere):
    run(elsewhere, f"{PIP} site ./source")
    run(elsewhere, "mypy --strict typed_caller.py")
    run(elsewhere, "basedpyright typed_caller.py")


def test_an_editable_installation_is_a_path_which_type_checkers_follow(elsewhere):
    run(elsewhere, f"{PIP} editable --editable ./source")
    (path,) = elsewhere.glob("editable/*.pth")
    assert path.read_text().strip() == str(elsewhere / "source")
