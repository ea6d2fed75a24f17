"""A handler as callers write it, for a type checker alone; each `ignore` is of an error."""

from datetime import datetime
from typing import assert_type

import exam_requests as exam
from exam_models import ItemStatus, ResultType


def scan(task_id: str, token: str) -> exam.ResultOut:
    """Use the six functions and the four models correctly."""
    task = exam.get_task(task_id, token)
    task.status = ItemStatus.FINISHED
    assert_type(exam.set_task(task_id, task, token), exam.AcquisitionTaskOut)
    assert_type(exam.get_sequence(task.sequence_id or "", token), exam.MRISequenceOut)
    blank = exam.create_blank_result(task_id, token)
    exam.delete_blank_result(str(blank.id), token)
    payload = exam.SetResult(type=ResultType.MRD, directory="/data")
    exam.MRISequenceOut(
        id="1", name="", description="", sequence_type="", created_at=datetime.now(), seq_file=""
    )
    return exam.set_result(str(blank.id), payload, token)


def mistakes(task: exam.AcquisitionTaskOut, result: exam.ResultOut) -> None:
    """Use them wrongly."""
    exam.get_task(task.id, "t")  # type: ignore[arg-type]
    exam.get_sequence("1")  # type: ignore[call-arg]
    exam.set_task("1", result, "t")  # type: ignore[arg-type]
    exam.set_result("1", {"type": "MRD"}, "t")  # type: ignore[arg-type]
    exam.SetResult(directory="/data")  # type: ignore[call-arg]
    task.progress = task.nmae  # type: ignore[attr-defined]
    task.progres = 42  # type: ignore[attr-defined]
    task.progress = "half"  # type: ignore[assignment]
