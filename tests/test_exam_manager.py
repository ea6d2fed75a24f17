"""The exam manager of the examples, beside what was recorded of the real one, and calls to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from calls import COULD_NOT, MRD, UNKNOWN_ID

SERVE = [sys.executable, Path(__file__).parents[1] / "examples/exam_manager.py", "--keep"]
TASK, SEQUENCE, RESULT = "/task/{task_id}", "/sequence/{sequence_id}", "/result/{result_id}"
FAILED = "Internal Server Error"
WRONG = "Invalid link to workflow. Instance needs to refer to instance, template to template."


@pytest.fixture
def ask(exam_manager):
    """Send a request, of a whole task or result with the changes that are given."""
    ids = dict(vars(exam_manager))
    head = {"Authorization": f"Bearer {exam_manager.token}", "Content-Type": "application/json"}

    def send(method, path, body=None):
        if isinstance(body, dict):
            whole = MRD if path.startswith("/result") else exam_manager.tasks[exam_manager.task_id]
            body = {name: value for name, value in {**whole, **body}.items() if value is not ...}
        url = f"{exam_manager.url}/api/v1/exam{path.format(**ids)}"
        return requests.request(method, url, headers=head, data=json.dumps(body), timeout=30)

    ids["result_id"] = send("POST", "/result?task_id={task_id}").json()["id"]
    return send


@pytest.mark.parametrize(
    ("line", "body", "status", "detail"),
    [
        ("GET /task/nope", None, 400, "Badly formed task_id."),
        (f"GET /sequence/{'0' * 24}", None, 404, f"MRI sequence with ID {'0' * 24} not found."),
        ("GET /sequence/nope", None, 500, FAILED),
        (f"PUT /task/{UNKNOWN_ID}", {}, 404, COULD_NOT.format("update workflow")),
        ("PUT /task/nope", {}, 500, FAILED),
        (f"PUT {TASK}", {"progress": "abc"}, 422, ["body", "ACQUISITION", "progress"]),
        (f"PUT {TASK}", {"progress": 2**31}, 500, FAILED),
        (f"PUT {TASK}", {"name": "a\0b"}, 500, FAILED),
        (f"PUT {TASK}", {"workflow_id": UNKNOWN_ID}, 400, "workflow_id must be an existing id."),
        (f"PUT {TASK}", {"workflow_id": None}, 400, "Task instance needs workflow_id."),
        (f"PUT {TASK}", {"is_template": True}, 400, WRONG),
        (f"POST /result?task_id={UNKNOWN_ID}", None, 400, "Parent (task_id) does not exist."),
        ("POST /result?task_id=nope", None, 500, FAILED),
        (f"PUT {RESULT}", {"files": ["a\0b"]}, 500, FAILED),
        (f"PUT /result/{UNKNOWN_ID}", {}, 404, COULD_NOT.format("update result")),
        ("PUT /result/nope", {}, 500, FAILED),
        (f"PUT {RESULT}", {"meta": {"snr": [float("nan")]}}, 500, FAILED),
        (f"DELETE /result/{UNKNOWN_ID}", None, 404, COULD_NOT.format("delete result")),
        ("DELETE /result/nope", None, 500, FAILED),
        ("DELETE /result?result_id={result_id}", None, 500, FAILED),
    ],
)
def test_refusals_are_the_recorded_ones(ask, line, body, status, detail):
    answer = ask(*line.split(), body)
    told = answer.text if status == 500 else answer.json()["detail"]
    assert (answer.status_code, told[0]["loc"] if status == 422 else told) == (status, detail)


def test_an_update_resets_what_it_leaves_out_and_notes_the_time(ask):
    before = ask("PUT", TASK, {}).json()
    assert (before["calibration"], before["datetime_updated"]) == (["frequency"], None)
    after = ask("PUT", TASK, {"calibration": ..., "creator": "eva", "id": UNKNOWN_ID}).json()
    assert after == before | {"calibration": [], "datetime_updated": after["datetime_updated"] or 0}
    assert ask("PUT", TASK, {}).json() == after


def test_an_encoded_slash_in_an_id_leads_to_another_route(ask):
    assert len(ask("GET", "/task/all%2F{workflow_id}").json()) == 2


SHOW = f'"{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'


def test_what_is_printed_sets_the_values_which_survive_a_restart_with_keep(exam_manager):
    runs = []
    for _ in range(2):
        with subprocess.Popen([*SERVE, "--tasks=3"], stdout=subprocess.PIPE, text=True) as process:
            try:
                line = next(line for line in process.stdout if line.startswith(("  exp", "  for")))
                told = subprocess.check_output(f"{line.strip()}&&{SHOW}", shell=True)  # noqa: S602
                held = json.loads(told.splitlines()[-1])
                url = f"{held['EXAM_MANAGER_URL']}/api/v1/exam/task/all/{held['WORKFLOW_ID']}"
                head = {"Authorization": f"Bearer {held['TOKEN']}"}
                tasks = requests.get(url, headers=head, timeout=30).json()
            finally:
                process.terminate()
        assert (len(tasks), tasks[0]["id"]) == (4, held["TASK_ID"])
        runs.append((held["TOKEN"], held["TASK_ID"]))
        assert os.name == "nt" or not (process.returncode or Path(line.split("'")[1]).exists())
    assert runs[0] == runs[1] != (exam_manager.token, exam_manager.task_id)
