# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Uploads: the file first, then the result. A complete measurement is never deleted.

What is recorded stands in ``DATA_DIRECTORY/WORKFLOW/TASK/RESULT``, what is not recorded yet in
``DATA_DIRECTORY/TASK_UNIQUE``, and what is still arriving has ``.part`` after that.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import UUID, uuid4

from fastapi import HTTPException

import exam_requests as exam
from exam_models import ResultType

DATA_DIRECTORY = Path(os.environ.get("DATA_DIRECTORY", "data")).absolute()
REPEAT_SECONDS = 20.0  # A restart of the exam manager or of its database takes less.
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
        why = getattr(error, "detail", None) or getattr(error, "strerror", None) or repr(error)
        logger.error("Task %s is not recorded: %s: %s", task_id, folder / payload.files[0], why)
        if not isinstance(error, (HTTPException, OSError)):
            raise
        status, headers = getattr(error, "status_code", 507), getattr(error, "headers", None)
        raise HTTPException(status, f"stored, but not recorded: {why}", headers) from error


def claim(folder: Path, task_id: str, token: str) -> Path:
    """Create a result, and name the folder after it."""
    task = repeat(exam.get_task, task_id, token)
    home = folder.parent / str(task.workflow_id) / task_id  # ScanHub's viewer looks there.
    home.mkdir(parents=True, exist_ok=True)
    old = {result.id for result in task.results}

    def create() -> Path:
        try:
            return rename(folder, home / str(exam.create_blank_result(task_id, token).id))
        except HTTPException as error:
            if error.status_code not in PASSING:
                raise
            # It may be created all the same, and ScanHub takes the latest result, also a blank one.
            for pause in (5, 0):  # The exam manager may wait 5 s for the login service.
                for result in repeat(exam.get_task, task_id, token).results:
                    new = result.id not in old and not result.files
                    if new and result.type == ResultType.NOT_SET:
                        with suppress(HTTPException):
                            return rename(folder, home / str(result.id))
                time.sleep(pause)
            raise

    return repeat(create)


def rename(folder: Path, target: Path) -> Path:
    """Rename a folder, and flush that to the disk; of two uploads only one can take a name."""
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
        raise HTTPException(503, "another upload took this result") from None
    for path in (target, *target.parents[:3]):
        with suppress(OSError), ExitStack() as stack:  # Windows cannot flush a folder.
            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            os.fsync(descriptor)
    return target


def repeat(call: Callable[..., T], *arguments: Any) -> T:
    """Make a call, and again each second while what is wrong may pass."""
    end = time.monotonic() + REPEAT_SECONDS
    while time.monotonic() < end:
        try:
            return call(*arguments)
        except HTTPException as error:
            if error.status_code not in PASSING or "the access token is" in error.detail:
                raise
        time.sleep(1)
    return call(*arguments)
