# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""A device manager's handlers: two for HTTP, and one for the WebSocket of a device.

``make serve`` installs what they need and shows the line that sets ``EXAM_MANAGER_URL``; then
``.venv/bin/uvicorn --app-dir examples handlers:app --port 8001`` runs them.
"""

import logging
from contextlib import suppress
from io import BytesIO
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

import exam_requests as exam
from exam_models import ItemStatus
from uploads import store

logger = logging.getLogger(__name__)
app = FastAPI(title="Device manager")
Token = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]


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
