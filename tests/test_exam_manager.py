"""The exam manager of the examples, beside what was recorded of the real one, and calls to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from calls import COULD_NOT, MRD, NEVER
from exam_models import AcquisitionTaskOut, MRISequenceOut

COMMAND = [sys.executable, Path(__file__).parents[1] / "examples" / "exam_manager.py"]
TASK, DAG, SEQUENCE = "/task/{task_id}", "/task/{dag_task_id}", "/sequence/{sequence_id}"
CREATE, RESULT = "/result?task_id={task_id}", "/result/{result_id}"
FAILED = "Internal Server Error"
WRONG = "Invalid link to workflow. Instance needs to refer to instance, template to template."


@pytest.fixture
def ask(exam_manager):
    """Send a request, of a whole task or result with the changes that are given."""
    ids = dict(vars(exam_manager))

    def send(method, path, body=None, token=exam_manager.token):
        if isinstance(body, dict):
            whole = MRD if path.startswith("/result") else exam_manager.tasks[ids["task_id"]]
            body = {name: value for name, value in {**whole, **body}.items() if value is not ...}
        data = None if body is None else json.dumps(body)
        head = {"Authorization": token and f"Bearer {token}", "Content-Type": "application/json"}
        url = f"{exam_manager.url}/api/v1/exam{path.format(**ids)}"
        return requests.request(method, url, headers=head, data=data, timeout=30)

    ids["result_id"] = send("POST", CREATE).json()["id"]
    return send


@pytest.mark.parametrize(
    ("line", "body", "status", "detail"),
    [
        (f"GET /task/{NEVER}", None, 404, "Task not found"),
        ("GET /task/nope", None, 400, "Badly formed task_id."),
        (f"GET /sequence/{'0' * 24}", None, 404, f"MRI sequence with ID {'0' * 24} not found."),
        ("GET /sequence/nope", None, 500, FAILED),
        (f"PUT /task/{NEVER}", {}, 404, COULD_NOT.format("update workflow")),
        ("PUT /task/nope", {}, 500, FAILED),
        (f"PUT {TASK}", {"progress": "abc"}, 422, ["body", "ACQUISITION", "progress"]),
        (f"PUT {TASK}", {"progress": 2**31}, 500, FAILED),
        (f"PUT {TASK}", {"name": "a\0b"}, 500, FAILED),
        (f"PUT {TASK}", {"workflow_id": NEVER}, 400, "workflow_id must be an existing id."),
        (f"PUT {TASK}", {"workflow_id": None}, 400, "Task instance needs workflow_id."),
        (f"PUT {TASK}", {"is_template": True}, 400, WRONG),
        (f"POST /result?task_id={NEVER}", None, 400, "Parent (task_id) does not exist."),
        ("POST /result?task_id=nope", None, 500, FAILED),
        (f"PUT {RESULT}", {"files": ["a\0b"]}, 500, FAILED),
        (f"PUT /result/{NEVER}", {}, 404, COULD_NOT.format("update result")),
        ("PUT /result/nope", {}, 500, FAILED),
        (f"PUT {RESULT}", {"meta": {"snr": [float("nan")]}}, 500, FAILED),
        (f"DELETE /result/{NEVER}", None, 404, COULD_NOT.format("delete result")),
        ("DELETE /result/nope", None, 500, FAILED),
        ("DELETE /result?result_id={result_id}", None, 500, FAILED),
    ],
)
def test_refusals_are_the_recorded_ones(ask, line, body, status, detail):
    answer = ask(*line.split(), body)
    told = answer.text if status == 500 else answer.json()["detail"]
    assert (answer.status_code, told[0]["loc"] if status == 422 else told) == (status, detail)


def test_the_records_have_scanhubs_fields(ask):
    assert list(ask("GET", TASK).json()) == list(AcquisitionTaskOut.model_fields)
    assert {*ask("GET", SEQUENCE).json(), "id"} == {*MRISequenceOut.model_fields, "_id"}
    assert ask("GET", DAG).json().keys() > {"dag_type", "dag_id", "input_task_ids", "parameter"}
    assert list(ask("PUT", DAG, {}).json()) == list(AcquisitionTaskOut.model_fields)


def test_each_answer_has_a_schema(exam_manager):
    paths = requests.get(f"{exam_manager.url}/openapi.json", timeout=30).json()["paths"]
    told = {op["summary"]: str(op["responses"]) for path in paths.values() for op in path.values()}
    models = {"Get Task": "AcquisitionTaskOut", "Update Task": "DAGTaskOut"}
    models |= {"Get Sequence": "MRISequenceOut", "Create Blank Result": "ResultOut"}
    for name, model in (models | {"Set Result": "ResultOut"}).items():
        assert f"schemas/{model}'" in told[name]


def test_a_result_is_created_and_set_and_deleted_only_once(ask, exam_manager):
    created = ask("POST", CREATE)
    blank = dict(type="NOT_SET", directory="", files=[], meta=None, task_id=exam_manager.task_id)
    assert (created.status_code, created.json()) == (201, created.json() | blank)
    path = f"/result/{created.json()['id']}"
    assert ask("PUT", path, {}).json() == created.json() | MRD
    assert ask("GET", TASK).json()["results"][-1] == created.json() | MRD
    assert [ask("DELETE", path).status_code for _ in range(2)] == [204, 404]


def test_users_not_logged_in_are_refused(ask, exam_manager):
    for token in (None, "wrong", exam_manager.expired_token):
        answer = ask("DELETE", RESULT, token=token)
        told = (answer.status_code, answer.json()["detail"], answer.headers["WWW-Authenticate"])
        assert told == (401, "Invalid token." if token else "Not authenticated", "Bearer")


def test_an_update_resets_what_it_leaves_out_and_notes_the_time(ask):
    before = ask("PUT", TASK, {}).json()
    assert (before["calibration"], before["datetime_updated"]) == (["frequency"], None)
    after = ask("PUT", TASK, {"calibration": ..., "creator": "eva", "id": NEVER}).json()
    assert after == before | {"calibration": [], "datetime_updated": after["datetime_updated"] or 0}
    assert ask("PUT", TASK, {}).json() == after


def test_a_slash_in_an_id_leads_to_another_route_even_encoded(ask, exam_manager):
    task, dag = exam_manager.tasks.values()
    ask("PUT", "/task/reorder", [dag["id"], task["id"]])
    assert (task["position"], dag["position"]) == (1, 0)
    dag["is_template"] = True
    assert ask("GET", "/task/templates%2Fall").json() == [dag]
    assert ask("GET", f"{SEQUENCE}%2Ffile").text.startswith("# Pulseq")
    assert ask("GET", f"{SEQUENCE}%2Fheader").status_code == 200


SHOW = f'"{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'


def test_what_is_printed_sets_the_values_which_survive_a_restart_with_keep(exam_manager):
    runs = []
    for _ in range(2):
        command = [*COMMAND, "--keep", "--tasks=3"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            line = next(line for line in process.stdout if line.startswith(("  exp", "  for")))
            told = subprocess.check_output(f"{line.strip()}&&{SHOW}", shell=True)  # noqa: S602
            values = json.loads(told.splitlines()[-1])
            url = f"{values['EXAM_MANAGER_URL']}/api/v1/exam/task/all/{values['WORKFLOW_ID']}"
            head = {"Authorization": f"Bearer {values['TOKEN']}"}
            tasks = requests.get(url, headers=head, timeout=30).json()
            process.terminate()
        ended = (process.returncode, Path(line.split("'")[1]).exists())
        assert ended == (0, False) or os.name == "nt"
        assert [task["task_type"] for task in tasks] == ["ACQUISITION", "DAG", *["ACQUISITION"] * 2]
        runs.append([values["TOKEN"], *(task["id"] for task in tasks)])
        assert ...
    assert runs[0] == runs[1] != 0
