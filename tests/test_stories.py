"""A device manager's stories over HTTP, against the exam manager of the examples."""

import json

import pytest
from fastapi import HTTPException

import calls
import exam_requests as exam
from calls import ANSWERED, CALLS, COULD_NOT, GET_TASK, MRD, NEVER, each


def test_an_acquisition_is_carried_out_and_reported(exam_manager):
    token = exam_manager.token
    task = exam.get_task(exam_manager.task_id, token)
    assert task.sequence_id
    assert "[VERSION]" in exam.get_sequence(task.sequence_id, token).seq_file
    for task.progress in (0, 50, 100):
        task.status = "INPROGRESS"
        assert exam.set_task(str(task.id), task, token).progress == task.progress
    blank = exam.create_blank_result(str(task.id), token)
    assert (blank.type, blank.directory, blank.files) == ("NOT_SET", "", [])
    result = exam.set_result(str(blank.id), exam.SetResult(**MRD), token)
    assert json.loads(result.model_dump_json()).items() >= MRD.items()
    task.status = "FINISHED"
    exam.set_task(str(task.id), task, token)
    finished = exam.get_task(str(task.id), token)
    assert (finished.status, finished.progress) == ("FINISHED", 100)
    assert finished.results == [result]


def test_a_failed_upload_leaves_no_result(exam_manager):
    blank = exam.create_blank_result(exam_manager.task_id, exam_manager.token)
    exam.delete_blank_result(str(blank.id), exam_manager.token)
    assert exam.get_task(exam_manager.task_id, exam_manager.token).results == []
    with pytest.raises(HTTPException) as again:
        exam.delete_blank_result(str(blank.id), exam_manager.token)
    assert again.value.status_code == 404


def test_a_task_that_is_read_and_written_back_is_unchanged(exam_manager):
    token = exam_manager.token
    task = exam.get_task(exam_manager.task_id, token)
    assert exam.set_task(exam_manager.task_id, task, token) == task


@each(CALLS)
def test_an_expired_token_is_a_401(exam_manager, call):
    assert call.fails(401, token=exam_manager.expired_token) == "Invalid token."


@pytest.mark.parametrize(
    ("call", "record_id", "status", "why"),
    [
        (GET_TASK, NEVER, 404, "Task not found"),
        (calls.GET_SEQUENCE, "0" * 24, 404, f"MRI sequence with ID {'0' * 24} not found."),
        (calls.CREATE_BLANK_RESULT, NEVER, 400, "Parent (task_id) does not exist."),
        (calls.DELETE_BLANK_RESULT, NEVER, 404, COULD_NOT.format("delete result")),
        (calls.SET_RESULT, NEVER, 404, COULD_NOT.format("update result")),
        (calls.SET_RESULT, "nope", 502, f"{ANSWERED} 500; the id is not a UUID"),
    ],
)
def test_an_unknown_id_is_refused_as_the_exam_manager_says_it(
    exam_manager, call, record_id, status, why
):
    assert call.fails(status, record_id=record_id, token=exam_manager.token) == why


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
