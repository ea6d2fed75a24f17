"""Calls as handlers write them, for a type checker alone; each `ignore` is of an error."""

from datetime import datetime
from typing import assert_type

import exam_requests as exam

exam.MRISequenceOut(
    id="1", name="", description="", sequence_type="", created_at=datetime.now(), seq_file=""
)
task = assert_type(exam.get_task("1", "t"), exam.AcquisitionTaskOut)
exam.set_task("1", task, "t")
exam.get_task(task.id, "t")  # type: ignore[arg-type]
exam.set_result("1", {"type": "MRD"}, "t")  # type: ignore[arg-type]
task.progres = 42  # type: ignore[attr-defined]
