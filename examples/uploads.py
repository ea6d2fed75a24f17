# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Uploads: the file first, then the result. A complete measurement is never deleted.

What is not recorded yet stands in ``DATA_DIRECTORY/TASK_UNIQUE``, what is still arriving has
``.part`` after that, and what is recorded stands in ``DATA_DIRECTORY/WORKFLOW/TASK/RESULT``.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import UUID, uuid4

from fastapi import HTTPException

import exam_requests as exam
from exam_models import ResultType

DATA_DIRECTORY = Path(os.environ.get("DATA_DIRECTORY", "data")).absolute()
REPEAT_SECONDS = 20.0  # A restart of the exam manager or of its database takes less.
FIRST_PAUSE = 0.5
LATE_SECONDS = 5.0  # The exam manager may wait this long for the login service.
PASSING = {401, 502, 503, 504}  # 401 is also its answer while its database is down.

T = TypeVar("T")
logger = logging.getLogger(__name__)


def store(task_id: UUID, source: BinaryIO, token: str) -> exam.ResultOut:
    """Store what was measured, and then record it as a result of its task."""
    part = DATA_DIRECTORY / f"{task_id}_{uuid4()}.part"
    try:
        part.mkdir(parents=True)
        with (part / "raw.mrd").open("wb") as file:
            shutil.copyfileobj(source, file)
            if not file.tell():
                raise HTTPException(422, "the file is empty")
        folder = complete(part)
    except OSError as error:
        logger.error("Nothing is stored for task %s: %s", task_id, error)
        raise HTTPException(507, f"not stored: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # Once it is renamed, there is none.
    payload = exam.SetResult(type=ResultType.MRD, directory="", files=["raw.mrd"])
    return record(folder, payload, str(task_id), token)


def complete(part: Path) -> Path:
    """Take the `.part` off a folder's name, once its files are on the disk."""
    for path in part.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # After a power cut, a file that was renamed may be empty.
    return rename(part, part.with_suffix(""))


def record(folder: Path, payload: exam.SetResult, task_id: str, token: str) -> exam.ResultOut:
    """Record a complete measurement; whatever happens, none of its files is deleted."""
    try:
        folder = claim(folder, task_id, token)
        payload.directory = str(folder)
        return repeat(exam.set_result, folder.name, payload, token)
    except BaseException as error:
        why = getattr(error, "detail", repr(error))
        logger.error("Task %s is not recorded: %s: %s", task_id, folder / payload.files[0], why)
        if isinstance(error, HTTPException):
            error.detail = f"stored, but not recorded: {why}"
        raise


def claim(folder: Path, task_id: str, token: str) -> Path:
    """Create a result, and name the folder after it: of two uploads only one can do that."""
    task = repeat(exam.get_task, task_id, token)
    home = folder.parent / str(task.workflow_id) / task_id  # ScanHub's viewer looks there.
    home.mkdir(parents=True, exist_ok=True)
    before = {result.id for result in task.results}
    tries = 3
    while True:
        tries -= 1
        try:
            result = exam.create_blank_result(task_id, token)
            return rename(folder, home / str(result.id))
        except HTTPException as error:
            if not tries or error.status_code not in PASSING:
                raise
        except OSError:
            if not tries or not (home / str(result.id)).exists():
                raise  # Else another upload, whose answer was lost, has taken it.
        # The result may be there all the same, or be created late. A second one would stay
        # blank, and ScanHub takes the latest result, also if it is blank: look twice.
        for pause in (LATE_SECONDS, 0):
            for result in repeat(exam.get_task, task_id, token).results:
                blank = result.type == ResultType.NOT_SET and not result.files
                if blank and result.id not in before:
                    with suppress(OSError):  # Another upload may have taken it.
                        return rename(folder, home / str(result.id))
            time.sleep(pause)


def rename(folder: Path, target: Path) -> Path:
    """Rename a folder, unless another of this name holds a file, and flush that to the disk."""
    flush(folder)
    folder.rename(target)
    for parent in target.parents[:3]:
        flush(parent)
    return target


def flush(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def repeat(call: Callable[..., T], *arguments: Any) -> T:
    """Make a call, and again while what is wrong may pass, with growing pauses."""
    end, pause = time.monotonic() + REPEAT_SECONDS, FIRST_PAUSE
    while True:
        try:
            return call(*arguments)
        except HTTPException as error:
            if error.status_code not in PASSING or time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 8 * FIRST_PAUSE)
