"""Calls as handlers write them, for a type checker alone; each `ignore` is of an error."""

from datetime import datetime
from typing import assert_type

import exam_requests as exam
from exam_models import ResultType

payload = exam.SetResult(type=ResultType.MRD, directory="/data")
exam.MRISequenceOut(
    id="1", name="", description="", sequence_type="", created_at=datetime.now(), seq_file=""
)
task = assert_type(exam.get_task("1", "t"), exam.AcquisitionTaskOut)
assert_type(exam.set_task("1", task, "t"), exam.AcquisitionTaskOut)
assert_type(exam.get_sequence("1", "t"), exam.MRISequenceOut)
assert_type(exam.create_blank_result("1", "t"), exam.ResultOut)
assert_type(exam.set_result("1", payload, "t"), exam.ResultOut)
exam.delete_blank_result("1", "t")

exam.get_task(task.id, "t")  # type: ignore[arg-type]
exam.set_task("1", payload, "t")  # type: ignore[arg-type]
exam.set_result("1", {"type": "MRD"}, "t")  # type: ignore[arg-type]
task.progres = 42  # type: ignore[attr-defined]
task.progress = "half"  # type: ignore[assignment]
