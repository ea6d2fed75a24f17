# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""A device manager's handlers: two for HTTP, and one for the WebSocket of a device.

``make serve`` installs what they need and shows the line that sets ``EXAM_MANAGER_URL``; then
``.venv/bin/uvicorn --app-dir examples handlers:app --port 8001`` runs them.
"""

import logging
import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

import exam_requests as exam
from exam_models import ItemStatus, ResultType

DATA_DIRECTORY = Path(os.environ.get("DATA_DIRECTORY", "data")).absolute()

logger = logging.getLogger(__name__)
app = FastAPI(title="Device manager")
Token = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]


@app.get("/tasks/{task_id}")
def read_task(task_id: str, token: Token) -> exam.AcquisitionTaskOut:
    """Return a task: FastAPI runs a plain `def` in its thread pool."""
    return exam.get_task(task_id, token)


@app.post("/tasks/{task_id}/results", status_code=201)
async def post_file(task_id: str, data: Annotated[bytes, Body()], token: Token) -> exam.ResultOut:
    """Store the request's body: an `async def` makes its calls in the thread pool."""
    return await run_in_threadpool(store, task_id, data, token)


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

    task_id: str
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
    task_id, token = message.task_id, message.user_access_token
    if isinstance(message, Upload):
        return store(task_id, message.data, token)
    task = exam.get_task(task_id, token)
    if isinstance(message, Progress):
        task.status, task.progress = message.status, message.progress
        return exam.set_task(task_id, task, token)
    sequence = exam.get_sequence(task.sequence_id or "", token)
    task.status = ItemStatus.STARTED
    return {"task": exam.set_task(task_id, task, token), "sequence": sequence}


def store(task_id: str, data: bytes, token: str) -> exam.ResultOut:
    """Store what was measured, and record it as a result of its task."""
    result_id = str(repeat(exam.create_blank_result, task_id, token).id)  # A spare is harmless.
    directory = DATA_DIRECTORY / result_id  # Nothing that a device sends is part of a path.
    path, part = directory / "raw.mrd", directory / "raw.mrd.part"
    with ExitStack() as undo:  # If it fails before the file is complete, what is there is removed.
        undo.callback(discard, result_id, token)
        directory.mkdir(parents=True)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        part.write_bytes(data)
        os.replace(part, path)
        undo.pop_all()  # From here on nothing is deleted: it cannot be measured again.
    payload = exam.SetResult(type=ResultType.MRD, directory=str(directory), files=[path.name])
    try:  # Setting a result twice is harmless.
        return repeat(exam.set_result, result_id, payload, token)
    except BaseException:
        logger.error("Result %s of task %s is not recorded: %s", result_id, task_id, path)
        raise


def discard(result_id: str, token: str) -> None:
    """Delete a blank result; the caller sees the first error, not one from here."""
    with suppress(HTTPException):
        exam.delete_blank_result(result_id, token)


repeat = Retrying(  # For about ten seconds, with growing pauses.
    retry=retry_if_exception(lambda error: getattr(error, "status_code", 0) in {502, 503, 504}),
    wait=wait_exponential(multiplier=0.5, max=4),
    stop=stop_after_delay(10),
    reraise=True,
)
