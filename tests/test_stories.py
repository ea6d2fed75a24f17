"""A device manager's stories over HTTP, against the exam manager of the examples."""

import json
from typing import Any

import pytest
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
    task = get_task(exam_manager.task_id, token)
    assert set_task(exam_manager.task_id, task, token) == task


@each(CALLS)
def test_an_expired_token_is_a_401(exam_manager: ExamManager, call: Call) -> None:
    detail = call.fails(401, token=exam_manager.expired_token)
    assert detail == "Invalid token."


@each([call for call in CALLS if call.function != "get_sequence"])
def test_an_unknown_id_is_refused_as_the_exam_manager_says_it(
    exam_manager: ExamManager, call: Call
) -> None:
    arguments: dict[str, Any] = {"record_id": UNKNOWN, "token": exam_manager.token}
    if call.function == "set_task":
        arguments["payload"] = get_task(exam_manager.task_id, exam_manager.token)
    detail = call.fails(400 if call.method == "POST" else 404, **arguments)
    assert (
        detail
        == {
            "get_task": "Task not found",
            "set_task": COULD_NOT.format("update workflow"),
            "create_blank_result": "Parent (task_id) does not exist.",
            "delete_blank_result": COULD_NOT.format("delete result"),
            "set_result": COULD_NOT.format("update result"),
        }[call.function]
    )


def test_an_unknown_sequence_is_a_404(exam_manager: ExamManager) -> None:
    call = next(call for call in CALLS if call.function == "get_sequence")
    detail = call.fails(404, record_id="0" * 24, token=exam_manager.token)
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
