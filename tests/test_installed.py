"""The module where it is used: as one file inside ScanHub's device manager, and installed."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from unittest.mock import ANY, AsyncMock, call, patch
from uuid import UUID

import pytest

import exam_models
import exam_requests
from calls import UNKNOWN_ID

ROOT = Path(__file__).parents[1]
FILES = ("raw.mrd", "device_parameter.json")

PIP = "pip install --no-build-isolation --no-deps --target"

# The code of docs/scanhub.md, and what stands around it.
HANDLER = """
import asyncio
{imports}
{upload}
async def calls(task_id, sequence_id, user_access_token):
{calls}
    return task, sequence
"""


@pytest.fixture
def scanhub(tmp_path, exam_manager, monkeypatch):
    """Return a folder with ScanHub's library and a device manager, and let them be imported."""
    page = (ROOT / "docs" / "scanhub.md").read_text()
    task, sequence, imports, upload = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    calls = textwrap.indent(task + sequence, "    ")
    uploads = (ROOT / "examples" / "uploads.py").read_text()
    for old, new in re.findall("'s/\\^(.*)/(.*)/'", page):
        uploads = uploads.replace(f"\n{old} ", f"\n{new} ")
    models = Path(exam_models.__file__).read_text()  # ScanHub's ignore unknown fields.
    for name, text in {
        "app/__init__.py": "",  # Else an app.py in the clone, as the README has one, is found.
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


def run(folder, module):
    """Run a module that finds this folder's, and what pip installed, but not the working tree."""
    paths = [str(folder), str(folder / "site"), *(path for path in sys.path if "site-p" in path)]
    command = [sys.executable, "-S", "-m", *module.split()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    environment["MYPY_CACHE_DIR"] = str(ROOT / ".mypy_cache/installed")  # It halves the time.
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scanhubs_models_are_used_and_its_name_of_the_logger(scanhub, exam_manager, caplog):
    from app.api import exam_requests as exam
    from app.api.upload import calls
    from scanhub_libraries import models

    for name in ("AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"):
        assert getattr(exam, name) is getattr(models, name)
    ids = exam_manager.task_id, exam_manager.sequence_id
    task, sequence = asyncio.run(calls(*ids, exam_manager.token))
    assert isinstance(sequence, models.MRISequenceOut)
    assert exam.set_task(exam_manager.task_id, task, exam_manager.token) == task
    assert "app.api.exam_requests" in {record.name for record in caplog.records}


def test_a_scanhub_library_that_lacks_a_module_is_an_error(scanhub):
    models = scanhub / "scanhub_libraries/models.py"
    models.write_text("import no_such_module")
    with pytest.raises(ModuleNotFoundError, match="'no_such_module'"):
        import_module("app.api.exam_requests")
    models.unlink()
    with pytest.raises(ModuleNotFoundError, match="'scanhub_libraries.models'"):
        import_module("app.api.exam_requests")


def test_the_upload_is_recorded_or_kept_or_refused_and_the_device_is_told(scanhub, exam_manager):
    from app.api.upload import upload

    task_id, lake, token = exam_manager.task_id, scanhub / "lake", exam_manager.token
    for task, size, folder, told in (
        (task_id, 8, lake, None),
        (UNKNOWN_ID, 8, lake, "stored, but not recorded: Error getting task: Task not found"),
        (task_id, 7, lake, "wrong size"),
        (task_id, 8, scanhub / "app/api/upload.py", ANY),  # It is no folder.
    ):
        device = AsyncMock()
        device.receive_bytes.side_effect = [b"what ", b"was"]
        asyncio.run(upload(device, UUID(task), size, folder, token))
        assert device.receive_bytes.await_count == 2  # What is left unread would be a message.
        messages = [call({"command": "feedback", "message": told})] if told else []
        assert device.send_json.await_args_list == messages

    (result,) = exam_requests.get_task(task_id, token).results
    (kept,) = lake.glob(f"{UNKNOWN_ID}_*")
    paths = {folder / name for folder in (Path(result.directory), kept) for name in FILES}
    assert (result.files, paths) == ([*FILES], {p for p in lake.rglob("*") if p.is_file()})
    assert (kept / "raw.mrd").read_bytes() == b"what was"


def test_a_type_checker_sees_the_installed_module_and_finds_an_editable_one(tmp_path):
    left_out = shutil.ignore_patterns(".*", "build", "dist", "mutants", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "source", ignore=left_out)
    shutil.copy(ROOT / "tests" / "typed_caller.py", tmp_path)
    run(tmp_path, f"{PIP} site ./source")
    run(tmp_path, "mypy --strict typed_caller.py")
    run(tmp_path, f"{PIP} editable --editable ./source")
    (path,) = tmp_path.glob("editable/*.pth")
    assert path.read_text().strip() == str(tmp_path / "source")
