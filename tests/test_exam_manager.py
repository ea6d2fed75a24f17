"""The exam manager of the examples, beside what was recorded of the real one, and calls to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from fastapi import HTTPException

from calls import CALLS, COULD_NOT, MRD, NEVER, each
from exam_models import AcquisitionTaskOut, MRISequenceOut

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "examples" / "exam_manager.py")]
TASK, DAG, SEQUENCE = "/task/{task_id}", "/task/{dag_task_id}", "/sequence/{sequence_id}"
CREATE, RESULT = "/result?task_id={task_id}", "/result/{result_id}"
FAILED = "Internal Server Error"


@pytest.fixture
def ask(exam_manager):
    """Send a request, of a whole task or result with the changes that are given."""
    ids = dict(vars(exam_manager))

    def send(method, path, body=None, token=exam_manager.token):
        url = f"{exam_manager.url}/api/v1/exam{path.format(**ids)}"
        headers = {"Authorization": token and f"Bearer {token}", "Content-Type": "application/json"}
        if isinstance(body, dict):
            whole = MRD if path.startswith("/result") else exam_manager.tasks[ids["task_id"]]
            body = {name: value for name, value in {**whole, **body}.items() if value is not ...}
        sent = {"headers": headers, "data": None if body is None else json.dumps(body)}
        return requests.request(method, url, **sent, allow_redirects=False, timeout=30)

    ids["result_id"] = send("POST", CREATE).json()["id"]
    return send


@pytest.mark.parametrize(
    ("line", "body", "status", "detail"),
    [
        (f"GET /task/{NEVER}", None, 404, "Task not found"),
        ("GET /task/nope", None, 400, "Badly formed task_id."),
        ("GET /task/", None, 307, ""),
        (f"GET /sequence/{'0' * 24}", None, 404, f"MRI sequence with ID {'0' * 24} not found."),
        ("GET /sequence/nope", None, 500, FAILED),
        (f"PUT /task/{NEVER}", {}, 404, COULD_NOT.format("update workflow")),
        ("PUT /task/nope", {}, 500, FAILED),
        ("PUT /task/reorder", {}, 422, ["body"]),
        (f"PUT {TASK}", {"progress": "abc"}, 422, ["body", "ACQUISITION", "progress"]),
        (f"PUT {TASK}", {"progress": 2**31}, 500, FAILED),
        (f"PUT {TASK}", {"name": "a\0b"}, 500, FAILED),
        (f"PUT {TASK}", {"workflow_id": NEVER}, 400, "workflow_id must be an existing id."),
        (f"PUT {TASK}", {"workflow_id": None}, 400, "Task instance needs workflow_id."),
        (f"POST /result?task_id={NEVER}", None, 400, "Parent (task_id) does not exist."),
        ("POST /result?task_id=nope", None, 500, FAILED),
        ("POST /result", None, 422, ["query", "task_id"]),
        (f"PUT {RESULT}", {"files": ["a\0b"]}, 500, FAILED),
        (f"PUT /result/{NEVER}", {}, 404, COULD_NOT.format("update result")),
        ("PUT /result/nope", {}, 500, FAILED),
        (f"PUT {RESULT}", {"type": "FOO"}, 422, ["body", "type"]),
        (f"PUT {RESULT}", {"meta": {"snr": [float("nan")]}}, 500, FAILED),
        (f"DELETE /result/{NEVER}", None, 404, COULD_NOT.format("delete result")),
        ("DELETE /result/nope", None, 500, FAILED),
        ("DELETE /result?result_id={result_id}", None, 500, FAILED),
    ],
)
def test_refusals_are_the_recorded_ones(ask, line, body, status, detail):
    answer = ask(*line.split(), body)
    assert (answer.headers.get("Content-Type", "")[:10] == "text/plain") == (detail == FAILED)
    told = answer.text if status in (307, 500) else answer.json()["detail"]
    assert (answer.status_code, told[0]["loc"] if status == 422 else told) == (status, detail)


def test_the_records_have_scanhubs_fields(ask):
    assert list(ask("GET", TASK).json()) == list(AcquisitionTaskOut.model_fields)
    assert {*ask("GET", SEQUENCE).json(), "id"} == {*MRISequenceOut.model_fields, "_id"}
    assert ask("GET", DAG).json().keys() > {"dag_type", "dag_id", "input_task_ids", "parameter"}


def test_a_result_is_created_and_set_and_deleted_only_once(ask, exam_manager):
    created = ask("POST", CREATE)
    fields = {"type": "NOT_SET", "directory": "", "files": [], "meta": None}
    assert created.status_code == 201
    assert created.json().items() >= {**fields, "task_id": exam_manager.task_id}.items()
    path = f"/result/{created.json()['id']}"
    assert ask("PUT", path, {}).json() == {**created.json(), **MRD}
    assert ask("GET", TASK).json()["results"][-1] == {**created.json(), **MRD}
    assert [ask("DELETE", path).status_code for _ in range(2)] == [204, 404]


def test_users_not_logged_in_are_refused(ask, exam_manager):
    for method, path in (("GET", TASK), ("PUT", TASK), ("DELETE", RESULT)):
        for token in (None, "wrong", exam_manager.expired_token):
            answer = ask(method, path, {}, token)
            detail = "Invalid token." if token else "Not authenticated"
            assert (answer.status_code, answer.json()) == (401, {"detail": detail})
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_update_resets_what_it_leaves_out_and_notes_the_time(ask):
    before = ask("PUT", TASK, {}).json()
    assert (before["calibration"], before["datetime_updated"]) == (["frequency"], None)
    after = ask("PUT", TASK, {"calibration": ..., "creator": "eva", "id": NEVER}).json()
    assert after == {**before, "calibration": [], "datetime_updated": after["datetime_updated"]}
    assert after["datetime_updated"]
    assert ask("PUT", TASK, {}).json() == after


def test_an_acquisition_that_replaces_a_dag_task_drops_the_dag_fields(ask):
    assert "dag_id" not in ask("PUT", DAG, {}).json()


def test_a_template_needs_a_template_workflow(ask, exam_manager):
    for workflows in ([], exam_manager.exams.values()):
        exam_manager.templates.update(workflows)
        told = ask("PUT", TASK, {"is_template": not workflows}).json()["detail"]
        link = "Instance needs to refer to instance, template to template."
        assert told == f"Invalid link to workflow. {link}"
        assert ask("PUT", TASK, {"is_template": bool(workflows)}).status_code == 200


@pytest.mark.parametrize("task_type", ["RECONSTRUCTION", None])
def test_another_type_of_task_is_refused(ask, task_type):
    (problem,) = ask("PUT", TASK, {"task_type": task_type}).json()["detail"]
    assert (problem["type"], problem["loc"]) == ("union_tag_invalid", ["body"])
    tags = "expected tags: <TaskType.ACQUISITION: 'ACQUISITION'>, <TaskType.DAG: 'DAG'>"
    assert problem["msg"].endswith(tags)


@pytest.mark.parametrize("slash", ["/", "%2F"])
def test_a_slash_in_an_id_starts_a_new_segment(ask, exam_manager, slash):
    task, dag = exam_manager.tasks.values()
    ask("PUT", "/task/reorder", [dag["id"], task["id"]])
    tasks = ask("GET", f"/task/all{slash}{task['workflow_id']}").json()
    assert {task["id"]: task["position"] for task in tasks} == {task["id"]: 1, dag["id"]: 0}
    dag["is_template"] = True
    assert ask("GET", f"/task/templates{slash}all").json() == [dag]
    assert ask("GET", f"{SEQUENCE}{slash}file").text.startswith("# Pulseq")
    assert ask("GET", f"{SEQUENCE}{slash}header").status_code == 200


def test_exported_values_survive_a_restart_with_keep():
    ids = []
    for options in (["--keep"], ["--keep"], []):
        with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
            try:
                line = next(line for line in process.stdout or () if line.startswith("  . "))
                python = [sys.executable, "import json, os; print(json.dumps({**os.environ}))"]
                shell = ["/bin/sh", "-c", f'{line.strip()} && "$0" -c "$1"', *python]
                variables = json.loads(subprocess.check_output(shell))
                url = f"{variables['EXAM_MANAGER_URL']}/api/v1/exam/task/{variables['DAG_TASK_ID']}"
                headers = {"Authorization": f"Bearer {variables['TOKEN']}"}
                task = requests.get(url, headers=headers, timeout=30).json()
            finally:
                process.terminate()
        assert (process.returncode, Path(line.split()[1]).exists()) == (0, False)
        assert task["input_task_ids"] == [variables["TASK_ID"]]
        assert len(bytes.fromhex(variables["TOKEN"])) == 256
        ids.append({variables[name] for name in ("TOKEN", "DAG_TASK_ID", "SEQUENCE_ID")})
    assert ids[0] == ids[1]
    assert not ids[1] & ids[2]


@each(CALLS)
def test_an_id_with_a_path_in_it_reaches_no_other_record(exam_manager, call):
    held = (exam_manager.exams, exam_manager.tasks, exam_manager.results)
    before = [dict(records) for records in held]
    paths = [f"../{next(iter(exam_manager.exams))}", f"../task/{exam_manager.task_id}"]
    paths += [f"{exam_manager.task_id}?x=1", f"x/../{exam_manager.task_id}", "templates/all"]
    for path in paths:
        with pytest.raises(HTTPException):
            call(path, token=exam_manager.token)
    assert [dict(records) for records in held] == before
