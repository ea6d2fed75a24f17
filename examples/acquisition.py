# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""One acquisition, as a device manager runs it, and what can go wrong.

It starts an exam manager of its own. Each call is shown with its outcome.
"""

import logging
import math
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from fastapi import HTTPException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from exam_manager import ExamManager, running
from exam_models import ItemStatus, ResultType

TASK = "{0.name}: {0.status.value}, {0.progress} %"
REPORTED = {"status", "progress", "results", "datetime_updated"}  # what an acquisition changes
INDENT = len("create_blank_result  ")

console = Console(highlight=False)
console.width = max(60, min(console.width, 100))
wrong: list[str] = []  # what went wrong


def acquire(task_id: str, token: str) -> str:
    """Carry out a task, and return the id of its result."""
    import exam_requests as exam  # only after `main` has set the address

    task = call(TASK, exam.get_task, task_id, token)
    before = task.model_dump(exclude=REPORTED)
    sequence = call("{0.name}: {0.description}", exam.get_sequence, task.sequence_id or "", token)
    pulseq = str(sequence.seq_file)
    duration = re.search(r"^TotalDuration (\S+)", pulseq, re.MULTILINE)
    seconds = float(duration[1]) if duration else 1.0
    remark(f"{len(pulseq):,} characters of Pulseq, to be measured in {seconds} s")

    columns = (
        TextColumn("set_task".ljust(INDENT - 1)),
        TextColumn("{task.fields[held].status.value}, {task.completed:3.0f} %"),
        BarColumn(None),
        TextColumn("{task.fields[milliseconds]:5.1f} ms"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        bar = progress.add_task("", held=task, milliseconds=0.0)
        for percentage in range(5, 101, 5):
            time.sleep(seconds / 20)  # The device measures.
            task.status, task.progress = ItemStatus.INPROGRESS, percentage
            started = time.perf_counter()
            task = exam.set_task(task_id, task, token)
            milliseconds = (time.perf_counter() - started) * 1000
            progress.update(bar, completed=task.progress, held=task, milliseconds=milliseconds)

    result_id = str(call("{0.type.value}", exam.create_blank_result, task_id, token).id)
    payload = exam.SetResult(
        type=ResultType.MRD,
        directory=f"/data/{result_id}",
        files=["acquisition.mrd", "device_parameter.json"],
        meta={"larmor_frequency": 2.128e6, "averages": 1},
    )
    files = "{0.type.value}: {0.files[0]}, {0.files[1]}"
    result = call(files, exam.set_result, result_id, payload, token)
    task.status = ItemStatus.FINISHED
    call(TASK, exam.set_task, task_id, task, token)

    task = call(TASK, exam.get_task, task_id, token)
    check("it is finished, at 100 %", (task.status, task.progress) == (ItemStatus.FINISHED, 100))
    check("its other fields are as they were", task.model_dump(exclude=REPORTED) == before)
    check("it lists the result", result in task.results)
    fields = result.model_dump(include=set(exam.SetResult.model_fields))
    check("the result has the files that were set", fields == payload.model_dump())

    second = call("{0.type.value}: a second one", exam.create_blank_result, task_id, token)
    call("it is not needed", exam.delete_blank_result, str(second.id), token)
    task = call(TASK, exam.get_task, task_id, token)
    check("the second result is gone", second.id not in {result.id for result in task.results})
    return result_id


def meet_errors(manager: ExamManager, result_id: str, stop: Callable[[], None]) -> None:
    """Make calls that are refused, and one to an exam manager that has stopped."""
    import exam_requests as exam  # only after `main` has set the address

    task_id, token = manager.task_id, manager.token
    refused(401, "an expired token", exam.get_task, task_id, manager.expired_token)
    refused(404, "an unknown task", exam.get_task, str(uuid4()), token)
    refused(400, "a DAG task", exam.get_task, manager.dag_task_id, token)
    exam_id = next(iter(manager.exams))
    path = f"../{exam_id}"
    refused(404, f"the id {path}", exam.delete_blank_result, path, token)
    check("the exam to which this path leads is still there", exam_id in manager.exams)
    payload = exam.SetResult(type=ResultType.MRD, directory="/data", meta={"snr": math.nan})
    refused(422, "NaN in the metadata", exam.set_result, result_id, payload, token)
    stop()
    refused(503, "the exam manager has stopped", exam.get_task, task_id, token)


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Make a call, and show it with its time; `what` is filled in with its answer."""
    started = time.perf_counter()
    try:
        answer = function(*arguments)
    except HTTPException:
        show(function, "refused")
        raise
    milliseconds = (time.perf_counter() - started) * 1000
    show(function, what.format(answer), f"{milliseconds:.1f} ms")
    return answer


def refused(status: int, what: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Make a call that should be refused, and show the error."""
    error = None
    try:
        function(*arguments)
    except HTTPException as raised:
        error = raised
    show(function, what)
    if error:
        remark(f"{error.status_code} {error.detail}", "yellow")
    if not error or error.status_code != status:
        check(f"{what} is refused with {status}", False)


def show(function: Callable[..., Any], what: str, took: str = "") -> None:
    """Show a call that has ended."""
    line = Table.grid(expand=True)
    line.add_column(width=INDENT)
    line.add_column(ratio=1, overflow="fold")
    line.add_column(width=9, justify="right")
    line.add_row(function.__name__, Text(what), took)
    console.print(line)


def check(what: str, holds: bool) -> None:
    """Show whether something is as it should be."""
    remark(f"{'ok' if holds else 'WRONG'}: {what}", "green" if holds else "bold red")
    if not holds:
        wrong.append(what)


def remark(text: str, style: str = "") -> None:
    """Show more about a call."""
    for line in textwrap.wrap(text, console.width - INDENT):
        console.print(" " * INDENT + line, style=style, markup=False)


def heading(text: str) -> None:
    """Begin a part."""
    console.print()
    console.rule(Text(text, "bold"), align="left", style="dim")


def main() -> int:
    """Carry out an acquisition, and then make calls that are refused."""
    logging.getLogger("exam_requests").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        manager = stack.enter_context(running())
        os.environ["EXAM_MANAGER_URL"] = manager.url  # read when exam_requests is imported
        try:
            heading(f"One acquisition, with the exam manager at {manager.url}")
            result_id = acquire(manager.task_id, manager.token)
            heading("What can go wrong, as a handler sees it")
            meet_errors(manager, result_id, stack.close)
        except HTTPException as error:
            remark(f"{error.status_code} {error.detail}", "yellow")
            check("no call of the acquisition is refused", False)
    console.print()
    if wrong:
        console.print("Wrong: " + "; ".join(wrong), style="bold red", markup=False)
        return 1
    console.print("Everything came out as expected.", style="bold green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
