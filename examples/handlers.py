# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""A device manager's handlers: two for HTTP, and one for the WebSocket of a device.

``make serve`` installs what they need and shows the line that sets ``EXAM_MANAGER_URL``; then
``.venv/bin/uvicorn --app-dir examples handlers:app --port 8001`` runs them.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

import exam_requests as exam
from exam_models import ItemStatus, ResultType

DATA_DIRECTORY = Path(os.environ.get("DATA_DIRECTORY", "data")).absolute()
REPEAT_SECONDS = 20.0  # A restart of the exam manager or of its database takes less.
FIRST_PAUSE = 0.5
LATE_SECONDS = 5.0  # The exam manager may wait this long for the login service.
PASSING = {401, 502, 503, 504}  # 401 is also its answer while its database is down.

logger = logging.getLogger(__name__)
app = FastAPI(title="Device manager")
Token = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]
T = TypeVar("T")


@app.get("/tasks/{task_id}")
def read_task(task_id: UUID, token: Token) -> exam.AcquisitionTaskOut:
    """Return a task: FastAPI runs a plain `def` in its thread pool."""
    return exam.get_task(str(task_id), token)


@app.post("/tasks/{task_id}/results", status_code=201)
def post_file(task_id: UUID, file: UploadFile, token: Token) -> exam.ResultOut:
    """Store the file of a form, of any size; its name decides nothing."""
    return store(task_id, file.file, token)


@app.websocket("/device")
async def device(websocket: WebSocket) -> None:
    """Answer each message of a device with exactly one message, whatever it contains."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):  # A device may hang up before it is answered.
        while (event := await websocket.receive())["type"] != "websocket.disconnect":
            message = event.get("text") or event.get("bytes") or ""
            await websocket.send_text(await run_in_threadpool(reply, message))


class Message(BaseModel):
    """What every message of a device holds."""

    model_config = ConfigDict(val_json_bytes="base64")

    task_id: UUID
    user_access_token: str


class Start(Message):
    """The device asks for what it is to measure."""

    command: Literal["start"]


class Progress(Message):
    """The device says how far it has come."""

    command: Literal["progress"]
    status: ItemStatus = ItemStatus.INPROGRESS
    progress: int = Field(ge=0, le=100)


class Upload(Message):
    """The device sends what it has measured: up to 12 MiB, as uvicorn takes 16 in base64."""

    command: Literal["upload"]
    data: bytes


MESSAGE: TypeAdapter[Start | Progress | Upload] = TypeAdapter(
    Annotated[Start | Progress | Upload, Field(discriminator="command")]
)


def reply(text: str | bytes) -> str:
    """Carry out a device's message; an error becomes one feedback message."""
    try:
        message = MESSAGE.validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        return feedback(422, ": ".join([*map(str, problem["loc"]), problem["msg"]])[:300])
    try:
        return to_json({"command": message.command, "data": carry_out(message)}).decode()
    except HTTPException as error:
        return feedback(error.status_code, error.detail)
    except Exception:  # Its text is for the log only.
        logger.exception("Error carrying out a device's message")
        return feedback(500, "Internal Server Error")


def feedback(status: int, detail: str) -> str:
    """Say what went wrong, in words that are safe to send."""
    return to_json({"command": "feedback", "status": status, "detail": detail}).decode()


def carry_out(message: Start | Progress | Upload) -> Any:
    """Make the calls of one message, one after the other in the same thread."""
    task_id, token = str(message.task_id), message.user_access_token
    if isinstance(message, Upload):
        return store(message.task_id, BytesIO(message.data), token)
    task = exam.get_task(task_id, token)
    if isinstance(message, Progress):
        task.status, task.progress = message.status, message.progress
        return exam.set_task(task_id, task, token)
    sequence = exam.get_sequence(task.sequence_id or "", token)
    task.status = ItemStatus.STARTED
    return {"task": exam.set_task(task_id, task, token), "sequence": sequence}


def store(task_id: UUID, source: BinaryIO, token: str) -> exam.ResultOut:
    """Store what was measured, and then record it as a result of its task."""
    part = DATA_DIRECTORY / f"{task_id}_{uuid4()}.part"
    try:
        part.mkdir(parents=True)
        with (part / "raw.mrd").open("wb") as file:
            shutil.copyfileobj(source, file)
            if not file.tell():
                raise HTTPException(422, "the file is empty")
            file.flush()
            os.fsync(file.fileno())  # After a power cut, a file that was renamed may be empty.
        folder = rename(part, DATA_DIRECTORY / part.stem)
    except OSError as error:
        logger.error("Nothing is stored for task %s: %s", task_id, error)
        raise HTTPException(507, f"not stored: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # Once it is renamed, there is none.
    payload = exam.SetResult(type=ResultType.MRD, directory="", files=["raw.mrd"])
    return record(folder, payload, str(task_id), token)


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
