"""The module where it is used: as one file inside ScanHub's device manager, and installed.

The stand-in of ScanHub's library is the bundled models; like it, it ignores unknown fields.
"""

import asyncio
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import AsyncMock, patch
from uuid import UUID

import pytest
from fastapi import WebSocket, WebSocketDisconnect

import exam_models
import exam_requests
from calls import NEVER

ROOT = Path(__file__).parent.parent

# ScanHub's own settings of its static checks.
RUFF = "ruff check --isolated --line-length 120 --target-version py310 --select E,W,F,S,I,N,D"
RUFF += " --config lint.pydocstyle.convention='numpy'"
MYPY = "mypy --python-version 3.13 --warn-unreachable --check-untyped-defs --ignore-missing-imports"
PIP = "pip install --no-build-isolation --no-deps --target"

# The code of docs/scanhub.md, and what stands around it.
HANDLER = '''"""Upload."""

import asyncio
{imports}

{upload}

async def calls(task_id: str, sequence_id: str, user_access_token: str) -> object:
    """Make the calls, and misspell a field."""
{calls}
    return task.nmae, sequence, repeat
'''


@pytest.fixture
def scanhub(tmp_path, exam_manager, monkeypatch):
    """Return a folder with ScanHub's library and a device manager, and let them be imported."""
    page = (ROOT / "docs" / "scanhub.md").read_text()
    task, sequence, imports, upload = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    calls = textwrap.indent(task + sequence, "    ")
    uploads = (ROOT / "examples" / "uploads.py").read_text()
    for old, new in re.findall("'s/\\^(.*)/(.*)/'", page):
        uploads = uploads.replace(f"\n{old} ", f"\n{new} ")
    models = Path(exam_models.__file__).read_text()
    for name, text in {
        "app/__init__.py": '"""Device manager."""\n',
        "app/api/__init__.py": '"""Its interface."""\n',
        "app/api/exam_requests.py": Path(exam_requests.__file__).read_text(),
        "app/api/upload.py": HANDLER.format(imports=imports, upload=upload, calls=calls),
        "app/api/uploads.py": uploads,
        "scanhub_libraries/models.py": models.replace('extra="allow"', 'extra="ignore"'),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("EXAM_MANAGER_URL", exam_manager.url)
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules, exam_requests=None, exam_models=None):  # ScanHub lacks these.
        yield tmp_path
        from app.api import exam_requests as exam

        for session in exam._sessions.values():
            session.close()


def run(folder, module, status=0):
    """Run a module that finds this folder's, and what pip installed, but not the working tree."""
    paths = [str(folder), str(folder / "site"), *(path for path in sys.path if "site-p" in path)]
    command = [sys.executable, "-S", "-m", *module.split()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_scanhubs_static_checks_find_nothing_but_the_misspelt_field(scanhub):
    run(scanhub, f"{RUFF} app")
    told = run(scanhub, f"{MYPY} app", status=1)
    (error,) = [line for line in told.splitlines() if "error:" in line]
    assert 'error: "AcquisitionTaskOut" has no attribute "nmae"' in error


def test_scanhubs_models_are_used_and_its_name_of_the_logger(scanhub, exam_manager, caplog):
    from app.api import exam_requests as exam
    from scanhub_libraries import models

    for name in ("AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"):
        assert getattr(exam, name) is getattr(models, name)
    task = exam.get_task(exam_manager.task_id, exam_manager.token)
    assert exam.set_task(exam_manager.task_id, task, exam_manager.token) == task
    assert caplog.records[-1].name == "app.api.exam_requests"


LACKING = {"models.py": "no_such_module", "other.py": "scanhub_libraries.models"}


@pytest.mark.parametrize("file", LACKING)
def test_a_scanhub_library_that_lacks_a_module_is_an_error(tmp_path, monkeypatch, file):
    (tmp_path / "scanhub_libraries").mkdir()
    (tmp_path / "scanhub_libraries" / file).write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules), pytest.raises(ModuleNotFoundError, match=LACKING[file]):
        runpy.run_path(exam_requests.__file__)


def test_the_upload_records_what_is_complete_and_tells_the_device_what_is_not(
    scanhub, exam_manager
):
    from app.api.upload import upload

    def send(task_id, *pieces, folder="lake"):
        """Send an upload of 8 bytes, and hang up; return what the device is told."""
        came = [{"type": "websocket.receive", "bytes": piece} for piece in pieces]
        came = [{"type": "websocket.connect"}, *came, {"type": "websocket.disconnect", "code": 1}]
        receive, told = AsyncMock(side_effect=came), AsyncMock()
        websocket = WebSocket({"type": "websocket"}, receive, told)
        asyncio.run(websocket.accept())
        asyncio.run(upload(websocket, UUID(task_id), 8, scanhub / folder, exam_manager.token))
        assert receive.await_count == 1 + len(pieces)
        return [json.loads(call.args[0]["text"])["message"] for call in told.mock_calls[1:]]

    task_id = exam_manager.task_id
    assert send(task_id, b"what ", b"was") == []
    (result,) = exam_requests.get_task(task_id, exam_manager.token).results
    assert result.files == ["raw.mrd", "device_parameter.json"]

    why = "stored, but not recorded: Error getting task: Task not found"
    assert send(NEVER, b"what ", b"was") == [why]
    assert send(task_id, b"what ", b"was it") == ["wrong size"]
    assert len(send(task_id, b"what ", b"was", folder="app/__init__.py")) == 1  # It is no folder.
    with pytest.raises(WebSocketDisconnect):
        send(task_id, b"what ")

    (kept,) = scanhub.glob(f"lake/{NEVER}_*")
    files = {folder / name for folder in (Path(result.directory), kept) for name in result.files}
    assert files == {path for path in scanhub.glob("lake/**/*") if path.is_file()}
    assert {path.read_text() for path in files} == {"what was", "{}"}


def test_a_type_checker_sees_the_installed_module_and_finds_an_editable_one(tmp_path):
    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", tmp_path)
    run(tmp_path, f"{PIP} site ./source")
    run(tmp_path, "mypy --strict typed_caller.py")
    run(tmp_path, f"{PIP} editable --editable ./source")
    (path,) = tmp_path.glob("editable/*.pth")
    assert path.read_text().strip() == str(tmp_path / "source")
