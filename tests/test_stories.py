"""A device manager's stories over HTTP, against the exam manager of the examples."""

import json
from typing import Any

import pytest
import requests
from fastapi import HTTPException

from calls import CALLS, Call, each
from exam_manager import ExamManager
from exam_requests import (
    SetResult,
    create_blank_result,
    delete_blank_result,
    get_sequence,
    get_task,
    set_result,
    set_task,
)

UNKNOWN = "00000000-0000-0000-0000-000000000000"
MRD = {"type": "MRD", "directory": "/data/1", "files": ["a.mrd"], "meta": {"snr": 4.5}}
COULD_NOT = "Could not {}, either because it does not exist, or for another reason."


def test_an_acquisition_is_carried_out_and_reported(exam_manager: ExamManager) -> None:
    token = exam_manager.token
    task = get_task(exam_manager.task_id, token)
    assert task.sequence_id
    assert "[VERSION]" in get_sequence(task.sequence_id, token).seq_file
    for task.progress in (0, 50, 100):
        task.status = "INPROGRESS"
        assert set_task(str(task.id), task, token).progress == task.progress
    blank = create_blank_result(str(task.id), token)
    assert (blank.type, blank.directory, blank.files) == ("NOT_SET", "", [])
    result = set_result(str(blank.id), SetResult(**MRD), token)
    assert json.loads(result.model_dump_json()).items() >= MRD.items()
    task.status = "FINISHED"
    set_task(str(task.id), task, token)
    finished = get_task(str(task.id), token)
    assert (finished.status, finished.progress) == ("FINISHED", 100)
    assert finished.results == [result]


def test_a_failed_upload_leaves_no_result(exam_manager: ExamManager) -> None:
    blank = create_blank_result(exam_manager.task_id, exam_manager.token)
    delete_blank_result(str(blank.id), exam_manager.token)
    assert get_task(exam_manager.task_id, exam_manager.token).results == []
    with pytest.raises(HTTPException) as again:
        delete_blank_result(str(blank.id), exam_manager.token)
    assert again.value.status_code == 404


def test_a_task_that_is_read_and_written_back_is_unchanged(exam_manager: ExamManager) -> None:
    token = exam_manager.token
    before = get_task(exam_manager.task_id, token)
    after = set_task(exam_manager.task_id, before, token)
    assert after.datetime_updated
    after.datetime_updated = before.datetime_updated
    assert after == before


@each(CALLS)
def test_an_expired_token_is_a_401(
    exam_manager: ExamManager, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    detail = call.fails(caplog, 401, token=exam_manager.expired_token)
    assert detail == f"{call.what}: Invalid token."


@each([call for call in CALLS if call.function != "get_sequence"])
def test_an_unknown_id_is_refused_as_the_exam_manager_says_it(
    exam_manager: ExamManager, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    arguments: dict[str, Any] = {"record_id": UNKNOWN, "token": exam_manager.token}
    if call.function == "set_task":
        arguments["payload"] = get_task(exam_manager.task_id, exam_manager.token)
    detail = call.fails(caplog, 400 if call.method == "POST" else 404, **arguments)
    assert (
        detail
        == {
            "get_task": "Task not found",
            "set_task": f"{call.what}: {COULD_NOT.format('update workflow')}",
            "create_blank_result": f"{call.what}: Parent (task_id) does not exist.",
            "delete_blank_result": f"{call.what}: {COULD_NOT.format('delete result')}",
            "set_result": f"{call.what}: {COULD_NOT.format('update result')}",
        }[call.function]
    )


def test_an_unknown_sequence_is_a_404(
    exam_manager: ExamManager, caplog: pytest.LogCaptureFixture
) -> None:
    call = next(call for call in CALLS if call.function == "get_sequence")
    detail = call.fails(caplog, 404, record_id="0" * 24, token=exam_manager.token)
    assert detail == f"MRI sequence with ID {'0' * 24} not found."


def test_a_dag_task_is_a_400(exam_manager: ExamManager) -> None:
    with pytest.raises(HTTPException) as raised:
        get_task(exam_manager.dag_task_id, exam_manager.token)
    assert raised.value.status_code == 400


@each(CALLS)
def test_an_id_with_a_path_in_it_reaches_no_other_record(
    exam_manager: ExamManager, call: Call
) -> None:
    before = (dict(exam_manager.exams), dict(exam_manager.tasks), dict(exam_manager.results))
    for path in (
        *(f"../{exam}" for exam in exam_manager.exams),
        f"../task/{exam_manager.task_id}",
        f"{exam_manager.task_id}?x=1",
        f"{exam_manager.task_id}#x",
        f"x/../{exam_manager.task_id}",
    ):
        with pytest.raises(HTTPException):
            call(path, token=exam_manager.token)
    assert (exam_manager.exams, exam_manager.tasks, exam_manager.results) == before


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ({"workflow_id": UNKNOWN}, 400, "workflow_id must be an existing id."),
        ({"workflow_id": None}, 400, "Task instance needs workflow_id."),
    ],
)
def test_a_refused_update_says_why(
    exam_manager: ExamManager, fields: dict[str, Any], status: int, why: str
) -> None:
    task = get_task(exam_manager.task_id, exam_manager.token).model_copy(update=fields)
    with pytest.raises(HTTPException) as raised:
        set_task(exam_manager.task_id, task, exam_manager.token)
    assert (raised.value.status_code, raised.value.detail) == (
        status,
        f"Error updating task: {why}",
    )


# The exam manager of the examples, beside what was recorded of the real one.

BEARER = {"WWW-Authenticate": "Bearer"}
FAILED = "Internal Server Error"
TASK, DAG, SEQUENCE, NEVER = "{0.task_id}", "{0.dag_task_id}", "{0.sequence_id}", UNKNOWN


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", f"/task/{TASK}", None, 200, None),
        ("GET", f"/task/{DAG}", None, 200, None),
        ("GET", f"/task/{NEVER}", None, 404, "Task not found"),
        ("GET", "/task/nope", None, 400, "Badly formed task_id."),
        ("GET", "/task/", None, 307, None),
        ("GET", f"/sequence/{SEQUENCE}", None, 200, None),
        ("GET", f"/sequence/{'0' * 24}", None, 404, f"MRI sequence with ID {'0' * 24} not found."),
        ("GET", "/sequence/nope", None, 500, FAILED),
        ("PUT", f"/task/{TASK}", {}, 200, None),
        ("PUT", f"/task/{NEVER}", {}, 404, COULD_NOT.format("update workflow")),
        ("PUT", "/task/nope", {}, 500, FAILED),
        ("PUT", f"/task/{TASK}", {"progress": "abc"}, 422, ["body", "ACQUISITION", "progress"]),
        (
            "PUT",
            f"/task/{TASK}",
            {"workflow_id": UNKNOWN},
            400,
            "workflow_id must be an existing id.",
        ),
        ("PUT", f"/task/{TASK}", {"workflow_id": None}, 400, "Task instance needs workflow_id."),
        ("POST", f"/result?task_id={TASK}", None, 201, None),
        ("POST", f"/result?task_id={NEVER}", None, 400, "Parent (task_id) does not exist."),
        ("POST", "/result?task_id=nope", None, 500, FAILED),
        ("POST", "/result", None, 422, ["query", "task_id"]),
        ("PUT", f"/result/{NEVER}", MRD, 404, COULD_NOT.format("update result")),
        ("PUT", "/result/nope", MRD, 500, FAILED),
        ("PUT", f"/result/{NEVER}", {**MRD, "type": "FOO"}, 422, ["body", "type"]),
        ("DELETE", "/result/nope", None, 500, FAILED),
        ("DELETE", f"/result?result_id={NEVER}", None, 500, FAILED),
    ],
)
def test_the_example_answers_as_recorded(
    exam_manager: ExamManager, method: str, path: str, body: Any, status: int, detail: Any
) -> None:
    uri = f"{exam_manager.url}/api/v1/exam"
    headers = {"Authorization": f"Bearer {exam_manager.token}"}
    if body is not None and path.startswith("/task"):
        whole = requests.get(f"{uri}/task/{exam_manager.task_id}", headers=headers, timeout=5)
        body = {**whole.json(), **body}
    answer = requests.request(
        *(method, uri + path.format(exam_manager)),
        json=body,
        headers=headers,
        allow_redirects=False,
        timeout=5,
    )
    assert answer.status_code == status
    if detail == FAILED:
        assert (answer.text, answer.headers["Content-Type"]) == (
            FAILED,
            "text/plain; charset=utf-8",
        )
    elif isinstance(detail, list):
        assert [problem["loc"] for problem in answer.json()["detail"]] == [detail]
    elif detail:
        assert answer.json() == {"detail": detail}


@pytest.mark.parametrize(
    ("headers", "detail"),
    [({}, "Not authenticated"), ({"Authorization": "Bearer wrong"}, "Invalid token.")],
)
def test_the_example_refuses_who_is_not_logged_in(
    exam_manager: ExamManager, headers: dict[str, str], detail: str
) -> None:
    url = f"{exam_manager.url}/api/v1/exam/task/{exam_manager.task_id}"
    answer = requests.get(url, headers=headers, timeout=5)
    assert (answer.status_code, answer.json()) == (401, {"detail": detail})
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_example_resets_what_a_task_leaves_out(exam_manager: ExamManager) -> None:
    url = f"{exam_manager.url}/api/v1/exam/task/{exam_manager.task_id}"
    headers = {"Authorization": f"Bearer {exam_manager.token}"}
    task = requests.get(url, headers=headers, timeout=5).json()
    assert task.pop("calibration")
    task |= {"creator": "eva", "id": UNKNOWN}
    answer = requests.put(url, json=task, headers=headers, timeout=5).json()
    assert (answer["calibration"], answer["id"]) == ([], exam_manager.task_id)
    assert answer["creator"] != "eva"
