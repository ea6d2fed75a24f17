"""The models: which are used, and that they lose nothing."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import responses

import exam_models
import exam_requests
from calls import GET_TASK, SET_RESULT, SET_TASK, TOKEN, result, sequence, task

NEWER = {"later": {"x": [1, {"y": None}]}, "other": "text"}


def everywhere(record: Any) -> Any:
    """Add fields that are newer than the models to a record and to all records in it."""
    if isinstance(record, dict):
        return {key: everywhere(value) for key, value in record.items()} | NEWER
    return [everywhere(value) for value in record] if isinstance(record, list) else record


def test_a_task_that_is_read_changed_and_written_back_loses_no_field() -> None:
    held = everywhere(task())
    held["results"][0]["meta"] = {"a": 1} | NEWER
    with responses.RequestsMock() as mock:
        mock.get(GET_TASK.url(), json=held)
        changed = GET_TASK()
        changed.progress = 42
        mock.put(SET_TASK.url(), json=held)
        SET_TASK(payload=changed)
        sent = json.loads(mock.calls[1].request.body)
    assert sent == {**held, "progress": 42}


def test_a_result_that_is_read_changed_and_written_back_loses_no_field() -> None:
    held = result(meta={"a": 1}) | NEWER
    with responses.RequestsMock() as mock:
        mock.put(SET_RESULT.url(), json=held)
        changed = SET_RESULT()
        changed.files = ["b.mrd"]
        mock.put(SET_RESULT.url(), json=held)
        SET_RESULT(payload=changed)
        sent = json.loads(mock.calls[1].request.body)
    assert sent == {**held, "files": ["b.mrd"]}


def test_a_field_of_a_subclass_is_sent() -> None:
    class Extended(exam_requests.SetResult):
        checksum: str

    payload = Extended(type="MRD", directory="/d", checksum="abc")
    with responses.RequestsMock() as mock:
        mock.put(SET_RESULT.url(), json=result())
        SET_RESULT(payload=payload)
        assert json.loads(mock.calls[0].request.body)["checksum"] == "abc"


def test_a_task_of_august_2025_is_read() -> None:
    older = {key: value for key, value in task().items() if key not in {"position", "calibration"}}
    read = exam_models.AcquisitionTaskOut.model_validate(older)
    assert (read.position, read.calibration) == (0, [])


@pytest.mark.parametrize(
    ("model", "record", "required"),
    [
        (
            exam_models.AcquisitionTaskOut,
            task(),
            {
                *("name", "description", "task_type", "destination", "status", "progress"),
                *("is_template", "id", "creator", "datetime_created", "results"),
            },
        ),
        (
            exam_models.MRISequenceOut,
            sequence(),
            {"name", "description", "sequence_type", "_id", "created_at", "seq_file"},
        ),
        (
            exam_models.ResultOut,
            result(),
            {"type", "directory", "task_id", "id", "datetime_created"},
        ),
        (
            exam_models.SetResult,
            {"type": "MRD", "directory": "/d", "files": [], "meta": {}},
            {"type", "directory"},
        ),
    ],
)
def test_the_fields_are_those_of_february_2026(
    model: Any, record: dict[str, Any], required: set[str]
) -> None:
    schema = model.model_json_schema()
    assert set(schema["required"]) == required
    assert set(schema["properties"]) == set(record)


def test_an_id_of_a_sequence_is_given_by_either_name() -> None:
    fields = {"name": "s", "description": "", "sequence_type": "", "seq_file": ""}
    created = {"created_at": "2026-02-03T04:05:06"}
    by_name = exam_models.MRISequenceOut(id="1", **fields, **created)
    assert by_name == exam_models.MRISequenceOut(_id="1", **fields, **created)


# Where ScanHub's shared library is installed.

LIBRARY = """
from pydantic import BaseModel, Field
class AcquisitionTaskOut(BaseModel):
    task_type: str
    name: str
class MRISequenceOut(BaseModel):
    id: str = Field(alias="_id")
class SetResult(BaseModel):
    directory: str
class ResultOut(BaseModel):
    directory: str
"""


def run(script: str, *places: Path) -> subprocess.CompletedProcess[str]:
    """Run a script where only `places` and what is installed can be imported from."""
    sites = [path for path in sys.path if "site-packages" in path]
    return subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=places[0],
        env={"PYTHONPATH": ":".join([*map(str, places), *sites])},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    """Return a folder that holds `exam_requests.py` and nothing else."""
    source = Path(exam_requests.__file__)
    folder = tmp_path / "api"
    folder.mkdir()
    (folder / source.name).write_bytes(source.read_bytes())
    return folder


def library(folder: Path, models: str) -> Path:
    """Install a library of the name of ScanHub's."""
    package = folder / "library" / "scanhub_libraries"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.py").write_text(models)
    return package.parent


def test_the_models_of_scanhub_are_used_where_they_are_installed(
    one_file: Path, tmp_path: Path
) -> None:
    script = """
import sys, exam_requests, scanhub_libraries.models as models
for name in ("AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"):
    assert getattr(exam_requests, name) is getattr(models, name)
assert "exam_models" not in sys.modules
"""
    done = run(script, one_file, library(tmp_path, LIBRARY))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_payload_of_scanhub_is_checked_and_sent(one_file: Path, tmp_path: Path) -> None:
    script = f"""
import exam_requests, fastapi, math, responses
from scanhub_libraries.models import AcquisitionTaskOut, SetResult
with responses.RequestsMock() as mock:
    mock.put(exam_requests.RESULT_URI + "/1", json={{"directory": "/d"}})
    exam_requests.set_result("1", SetResult(directory="/d"), "{TOKEN}")
    assert mock.calls[0].request.body == b'{{"directory":"/d"}}'
    mock.get(exam_requests.TASK_URI + "/1", json={{"task_type": "DAG", "name": "n"}})
    try:
        exam_requests.get_task("1", "{TOKEN}")
    except fastapi.HTTPException as error:
        assert error.status_code == 400
    else:
        raise AssertionError
"""
    done = run(script, one_file, library(tmp_path, LIBRARY))
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ("import no_such_module", ModuleNotFoundError, "No module named 'no_such_module'"),
        ("raise ValueError('broken')", ValueError, "broken"),
        ("", ImportError, "cannot import name 'AcquisitionTaskOut'"),
    ],
)
def test_a_library_of_scanhub_that_fails_to_import_is_an_error(
    tmp_path: Path,
    models: str,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(library(tmp_path, models))
    with patch.dict(sys.modules), pytest.raises(error, match=message):
        runpy.run_path(exam_requests.__file__)


def test_a_library_of_scanhub_without_models_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scanhub_libraries", ModuleType("scanhub_libraries"))
    with pytest.raises(ModuleNotFoundError, match=r"scanhub_libraries\.models"):
        runpy.run_path(exam_requests.__file__)


# The module itself.


def test_the_module_exports_the_documented_names_and_the_models() -> None:
    documented = {
        *("TASK_URI", "RESULT_URI", "SEQUENCE_URI"),
        *("get_task", "set_task", "get_sequence"),
        *("create_blank_result", "delete_blank_result", "set_result"),
    }
    models = {"AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"}
    assert set(exam_requests.__all__) == documented | models
    own = {
        name
        for name, value in vars(exam_requests).items()
        if getattr(value, "__module__", None) == "exam_requests" and not name.startswith("_")
    }
    assert own | models <= set(exam_requests.__all__)


@pytest.mark.parametrize(
    ("address", "base"),
    [
        (None, "http://exam-manager:8000"),
        ("", "http://exam-manager:8000"),
        ("https://exams.clinic.example:8443", "https://exams.clinic.example:8443"),
        ("https://exams.clinic.example/scanhub/", "https://exams.clinic.example/scanhub"),
    ],
)
def test_the_address_is_taken_from_the_environment(
    address: str | None, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EXAM_MANAGER_URL", raising=False)
    if address is not None:
        monkeypatch.setenv("EXAM_MANAGER_URL", address)
    module = runpy.run_path(exam_requests.__file__)
    for name in ("task", "result", "sequence"):
        assert module[f"{name.upper()}_URI"] == f"{base}/api/v1/exam/{name}"
