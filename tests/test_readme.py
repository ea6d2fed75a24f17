"""What the README shows is true: its code runs, its tables are the module's, its commands exist."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import exam_requests
from calls import CALLS, NEVER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NAMES = ("app.py", "test_app.py")
CODE = dict(zip(NAMES, re.findall(r"```python\n(.*?)```", README, re.DOTALL), strict=True))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write the files that the README shows, and let them be imported."""
    for name, text in CODE.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules):
        yield tmp_path


def test_the_handler_and_its_unit_tests_work(written, exam_manager):
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(written)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout

    import app

    task_id, token = exam_manager.task_id, exam_manager.token
    assert app.report_progress(task_id, 42, token) == exam_manager.tasks[task_id]["progress"] == 42


def test_a_wrong_attribute_fails_the_first_unit_test(written):
    app = written / "app.py"
    app.write_text(app.read_text().replace("task.progress", "task.status"))
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"]
    done = subprocess.run(run, cwd=written, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout


def test_the_table_of_functions_matches_the_module():
    rows = re.findall(
        r"^\| `(\w+)(\(.*\))` \| `(\w+)` `(\w+_URI)(.*)` \| `(\w+)` \|$", README, re.M
    )
    assert [row[0] for row in rows] == [call.function for call in CALLS]
    for (name, arguments, method, uri, rest, returns), call in zip(rows, CALLS, strict=True):
        signature = inspect.signature(getattr(exam_requests, name))
        assert arguments == f"({', '.join(signature.parameters)})"
        assert returns == getattr(signature.return_annotation, "__name__", "None")
        path = getattr(exam_requests, uri) + rest.partition("{")[0]
        assert (method, path) == (call.method, call.url(""))


ROWS = re.search(r"={6} =+\nstatus.*?\n={6} =+\n(.*?)\n={6} =+", exam_requests.__doc__, re.S)
OUTCOMES = [
    tuple(re.split(r" {3,4}", row, maxsplit=1))
    for row in re.sub(r"\n {7}", " ", ROWS[1]).splitlines()
]


def test_the_table_of_outcomes_matches_the_module():
    assert OUTCOMES == re.findall(r"^\| (\d\d\d|4xx) \| (.*) \|$", README, re.M)


def ending(status, *arguments):
    """Make the calls, and return those that end with a status."""
    ends = set()
    for call in CALLS:
        try:
            call(*arguments)
        except exam_requests.HTTPException as error:
            ends |= {call.function} if error.status_code == status else set()
    return ends


def test_the_outcomes_name_their_functions(exam_manager, mock, aim):
    named = {status: set(re.findall(r"`(\w+)`", what)) for status, what in OUTCOMES}
    mock.add_passthru(exam_manager.url)
    dag = ending(400, exam_manager.dag_task_id, exam_manager.token)
    assert named["400"] == dag | ending(400, NEVER, exam_manager.token)
    assert ending(405, NEVER, exam_manager.token) == set()  # The stand-in has each route.
    aim("http://exam-manager:8000")
    for call in CALLS:
        mock.add(call.method, call.url(), status=400, json={"detail": "No such id."})
    assert named["404"] == ending(404)


def test_every_command_exists():
    makefile = (ROOT / "Makefile").read_text()
    shown = set(re.findall(r"`make (\w+)", README)) | set(re.findall(r"^make (\w+)", README, re.M))
    assert shown <= set(re.findall(r"^(\w+):.*##", makefile, re.MULTILINE))
