"""What the README shows is true: its code runs, and its tables are the module's."""

import inspect
import re
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import exam_requests
from calls import CALLS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_handler_works_and_its_unit_tests_notice_if_it_sends_nothing(
    tmp_path, exam_manager, monkeypatch
):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for name, text in zip(["app.py", "test_app.py"], code, strict=True):
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules):
        import app
        import test_app
    task_id, token = exam_manager.task_id, exam_manager.token
    assert app.report_progress(task_id, 42, token) == exam_manager.tasks[task_id]["progress"] == 42
    for name, test in vars(test_app).items():
        if name.startswith("test_"):
            test()
    monkeypatch.setattr(app, "set_task", lambda task_id, task, token: task)
    with pytest.raises(IndexError):
        test_app.test_progress_is_reported()


def test_the_table_of_functions_is_what_the_module_exports():
    row = r"^\| `(\w+)(\(.*\))` \| `(\w+)` `(\w+_URI)(.*)` \| `(\w+)` \|$"
    rows = re.findall(row, README, re.M)
    for (name, arguments, method, uri, rest, returns), call in zip(rows, CALLS, strict=True):
        signature = inspect.signature(getattr(exam_requests, call.function))
        assert arguments == f"({', '.join(signature.parameters)})"
        assert returns == getattr(signature.return_annotation, "__name__", "None")
        url = getattr(exam_requests, uri) + rest.partition("{")[0]
        assert (name, method, url) == (call.function, call.method, call.url(""))
    names, _, _, uris, _, models = map(set, zip(*rows, strict=True))
    assert {*exam_requests.__all__, "None"} == {*names, *uris, *models, "SetResult"}


def test_the_table_of_outcomes_matches_the_module():
    rows = re.findall(r"^(\d\d\d|4xx) {4}(.*(?:\n {7}.*)*)", exam_requests.__doc__, re.M)
    table = re.findall(r"^\| (\d\d\d|4xx) \| (.*) \|$", README, re.M)
    assert [(status, " ".join(what.split())) for status, what in rows] == table != []
