"""A handler as callers write it, for a type checker alone; each `ignore` is of an error."""

from typing import assert_type
from uuid import UUID

from exam_models import ItemStatus, ResultType
from exam_requests import (
    TASK_URI,
    AcquisitionTaskOut,
    MRISequenceOut,
    ResultOut,
    SetResult,
    create_blank_result,
    delete_blank_result,
    get_sequence,
    get_task,
    set_result,
    set_task,
)


def scan(task_id: str, token: str) -> ResultOut:
    """Use the six functions and the four models correctly."""
    assert_type(TASK_URI, str)
    task = get_task(task_id, token)
    assert_type(task, AcquisitionTaskOut)
    assert_type(task.id, UUID)
    sequence = get_sequence(task.sequence_id or "", token)
    assert_type(sequence, MRISequenceOut)
    task.status = ItemStatus.FINISHED
    assert_type(set_task(task_id, task, token), AcquisitionTaskOut)
    result_id = str(create_blank_result(task_id, token).id)
    payload = SetResult(type=ResultType.MRD, directory="/data", files=[f"{sequence.name}.mrd"])
    try:
        return set_result(result_id, payload, token)
    except OSError:
        delete_blank_result(result_id, token)
        raise


def mistakes(task: AcquisitionTaskOut, result: ResultOut) -> int:
    """Use them wrongly."""
    get_task(12, "t")  # type: ignore[arg-type]
    get_sequence("1")  # type: ignore[call-arg]
    set_task("1", result, "t")  # type: ignore[arg-type]
    set_result("1", {"type": "MRD"}, "t")  # type: ignore[arg-type]
    SetResult(directory="/data")  # type: ignore[call-arg]
    number: int = task.name  # type: ignore[assignment]
    task.nmae  # type: ignore[attr-defined]
    task.progress = "half"  # type: ignore[assignment]
    return number
