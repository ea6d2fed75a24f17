"""A handler as callers write it, for a type checker alone; each `ignore` is of an error."""

from datetime import datetime
from typing import assert_type
from uuid import UUID

import exam_requests as exam
from exam_models import ItemStatus, ResultType


def scan(task_id: str, token: str) -> exam.ResultOut:
    """Use the six functions and the four models correctly."""
    assert_type(exam.TASK_URI, str)
    task = exam.get_task(task_id, token)
    assert_type(task, exam.AcquisitionTaskOut)
    assert_type(task.id, UUID)
    sequence = exam.get_sequence(task.sequence_id or "", token)
    assert_type(sequence, exam.MRISequenceOut)
    exam.MRISequenceOut(
        id="1", name="", description="", sequence_type="", created_at=datetime.now(), seq_file=""
    )
    task.status = ItemStatus.FINISHED
    assert_type(exam.set_task(task_id, task, token), exam.AcquisitionTaskOut)
    result_id = str(exam.create_blank_result(task_id, token).id)
    exam.delete_blank_result(str(exam.create_blank_result(task_id, token).id), token)
    payload = exam.SetResult(type=ResultType.MRD, directory="/data", files=[f"{sequence.name}.mrd"])
    return exam.set_result(result_id, payload, token)


def mistakes(task: exam.AcquisitionTaskOut, result: exam.ResultOut) -> int:
    """Use them wrongly."""
    exam.get_task(12, "t")  # type: ignore[arg-type]
    exam.get_sequence("1")  # type: ignore[call-arg]
    exam.set_task("1", result, "t")  # type: ignore[arg-type]
    exam.set_result("1", {"type": "MRD"}, "t")  # type: ignore[arg-type]
    exam.SetResult(directory="/data")  # type: ignore[call-arg]
    number: int = task.name  # type: ignore[assignment]
    task.progres = 42  # type: ignore[attr-defined]
    task.nmae  # type: ignore[attr-defined]
    task.progress = "half"  # type: ignore[assignment]
    return number
