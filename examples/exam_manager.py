# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""An exam manager to develop against.

It answers the operations of a device manager as ScanHub's does, errors included, and
holds its records in memory. ``python examples/exam_manager.py`` keeps one running; the
demo and the tests use `running`.
"""

import argparse
import json
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import uvicorn
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

import exam_models
from exam_models import CalibrationType, ItemStatus, MRISequenceOut, TaskType

TOKEN_SECONDS = 3600.0  # A token lapses after this time without use.
SEQUENCE_FILE = Path(__file__).with_name("gradient_echo.seq")

NOT_DONE = "Could not {}, either because it does not exist, or for another reason."
WRONG_LINK = "Invalid link to workflow. Instance needs to refer to instance, template to template."


# What the service accepts and answers. Unlike those of `exam_models`, these models drop a field
# that they do not know, such as the `id`, `creator` and `results` of a task that is sent back.


class BaseTask(BaseModel):
    """What all tasks have in common."""

    workflow_id: UUID | None = None
    name: str
    description: str
    task_type: TaskType
    destination: str
    status: ItemStatus
    progress: int
    is_template: bool
    position: int = 0


class BaseAcquisitionTask(BaseTask):
    """A task for a device."""

    task_type: Literal[TaskType.ACQUISITION]
    device_id: UUID | None = None
    calibration: list[CalibrationType] = []
    sequence_id: str | None = None
    acquisition_parameter: exam_models.AcquisitionParameter | None = None


class BaseDAGTask(BaseTask):
    """A task for the workflow manager."""

    task_type: Literal[TaskType.DAG]
    dag_type: Literal["RECONSTRUCTION", "PROCESSING"]
    dag_id: str
    input_task_ids: list[UUID] = []
    parameter: dict[str, Any] | None = None


class SetResult(exam_models.SetResult, extra="ignore"):
    """Where a result's files are and what they hold."""


class ResultOut(exam_models.ResultOut, extra="ignore"):
    """A result, as it is held."""


class TaskOut(BaseModel):
    """What the service adds to a task."""

    id: UUID
    creator: str
    datetime_created: datetime
    datetime_updated: datetime | None = None
    results: list[ResultOut]


class AcquisitionTaskOut(TaskOut, BaseAcquisitionTask):
    """A task for a device, as it is held."""

    acquisition_limits: exam_models.AcquisitionLimits | None = None


class DAGTaskOut(TaskOut, BaseDAGTask):
    """A task for the workflow manager, as it is held."""


Record = dict[str, Any]


class ExamManager:
    """The records of an exam manager, by id and in JSON form, and the tokens of its users.

    It starts with one exam: an acquisition, its reconstruction, and the acquisitions that
    are asked for beyond one. If `keep` is true, the ids and the token are always the same.
    """

    def __init__(self, url: str, keep: bool = False, acquisitions: int = 1) -> None:
        self.url = url
        self.random = random.Random(0 if keep else None)  # noqa: S311 -- its tokens guard nothing
        self.tokens: dict[str, float] = {}  # when each was last used
        self.exams: dict[str, str] = {}  # the workflow of each
        self.tasks: dict[str, Record] = {}
        self.results: dict[str, Record] = {}
        self.sequences: dict[str, Record] = {}

        self.token = self.log_in()
        self.expired_token = self.log_in()
        self.tokens[self.expired_token] -= TOKEN_SECONDS
        self.sequence_id = self.random.randbytes(12).hex()
        self.sequences[self.sequence_id] = {
            "name": "Gradient echo",
            "description": "One slice, 64 x 64",
            "sequence_type": "pulseq",
            "tags": ["2D"],
            "_id": self.sequence_id,
            "created_at": datetime.now().isoformat(),
            "seq_file": SEQUENCE_FILE.read_text(),
            "seq_file_extension": ".seq",
            "xml_file": SEQUENCE_FILE.with_suffix(".xml").read_text(),
            "xml_file_extension": ".xml",
        }
        self.workflow_id = str(self.new_id())
        self.exams[str(self.new_id())] = self.workflow_id
        zeros, ones = dict.fromkeys("xyz", 0), dict.fromkeys("xyz", 1)
        acquisition: Record = {
            "name": "Localizer",
            "task_type": "ACQUISITION",
            "device_id": self.new_id(),
            "calibration": ["frequency"],
            "sequence_id": self.sequence_id,
            "acquisition_parameter": dict(fov_scaling=ones, fov_offset=zeros, fov_rotation=zeros),
        }
        self.task_id = self.add_task(AcquisitionTaskOut, **acquisition)
        self.dag_task_id = self.add_task(
            DAGTaskOut,
            name="Reconstruction",
            task_type="DAG",
            dag_type="RECONSTRUCTION",
            dag_id="cartesian",
            input_task_ids=[self.task_id],
        )
        for _ in range(1, acquisitions):
            self.add_task(AcquisitionTaskOut, **acquisition)

    def new_id(self) -> UUID:
        """Return an id for a record."""
        return UUID(bytes=self.random.randbytes(16), version=4)

    def log_in(self) -> str:
        """Log in another user, and return the token."""
        token = self.random.randbytes(256).hex()
        self.tokens[token] = time.monotonic()
        return token

    def add_task(self, model: Any, **fields: Any) -> str:
        """Add a task and return its id."""
        task = model(
            id=self.new_id(), creator="ada", datetime_created=datetime.now(), results=[],
            workflow_id=self.workflow_id, position=len(self.tasks), description="",
            destination="", status="NEW", progress=0, is_template=False, **fields,
        )  # fmt: skip
        self.tasks[str(task.id)] = task.model_dump(mode="json")
        return str(task.id)

    def task(self, task_id: str) -> Record:
        """Return a task with its results."""
        results = [result for result in self.results.values() if result["task_id"] == task_id]
        return {**self.tasks[task_id], "results": results}


def stored(payload: BaseModel) -> Record:
    """Return a payload as it is stored; a ValueError is what a column of the database refuses."""
    fields = payload.model_dump()
    json.dumps(fields, default=str, allow_nan=False)
    for value in [*fields.values(), *fields.get("files", [])]:
        if isinstance(value, str) and "\0" in value:
            raise ValueError
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise ValueError
    return payload.model_dump(mode="json")


async def logged_in(
    request: Request, token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]
) -> ExamManager:
    """Give the records to the holder of a token that has not lapsed."""
    manager: ExamManager = request.app.state.manager
    used = manager.tokens.get(token)
    if used is None or time.monotonic() - used >= TOKEN_SECONDS:
        raise HTTPException(401, "Invalid token.", {"WWW-Authenticate": "Bearer"})
    manager.tokens[token] = time.monotonic()
    return manager


Manager = Annotated[ExamManager, Depends(logged_in)]
TaskPayload = Annotated[BaseAcquisitionTask | BaseDAGTask, Body(discriminator="task_type")]
AnyTask: Any = AcquisitionTaskOut | DAGTaskOut

# The operations never wait: no two run at once, so the records need no lock. An id that is
# not a UUID raises a ValueError, which becomes a 500, except in `get_task`.
#
# A device manager does not use the first two, but a careless id or path may reach them, also
# with "%2F" for the slash: uvicorn decodes it before routing.
router = APIRouter(prefix="/api/v1/exam")


@router.get("/task/all/{workflow_id}", response_model=list[AnyTask])
async def get_workflow_tasks(workflow_id: str, manager: Manager) -> list[Record]:
    """Get the tasks of a workflow."""
    workflow_id = str(UUID(workflow_id))
    return [task for task in map(manager.task, manager.tasks) if task["workflow_id"] == workflow_id]


@router.delete("/{exam_id}", status_code=204)
async def delete_exam(exam_id: str, manager: Manager) -> None:
    """Delete an exam."""
    if not manager.exams.pop(str(UUID(exam_id)), None):
        raise HTTPException(404, NOT_DONE.format("delete exam"))


@router.get("/task/{task_id}", response_model=AnyTask)
async def get_task(task_id: str, manager: Manager) -> Record:
    """Get a task."""
    try:
        task_id = str(UUID(task_id))
    except ValueError:
        raise HTTPException(400, "Badly formed task_id.") from None
    if task_id not in manager.tasks:
        raise HTTPException(404, "Task not found")
    return manager.task(task_id)


@router.put("/task/{task_id}", response_model=AnyTask)
async def update_task(task_id: str, payload: TaskPayload, manager: Manager) -> Record:
    """Update a task; the fields that are left out are reset."""
    task_id = str(UUID(task_id))
    workflow_id = payload.workflow_id and str(payload.workflow_id)
    if not workflow_id and not payload.is_template:
        raise HTTPException(400, "Task instance needs workflow_id.")
    if workflow_id not in {None, *manager.exams.values()}:
        raise HTTPException(400, "workflow_id must be an existing id.")
    if workflow_id and payload.is_template:
        raise HTTPException(400, WRONG_LINK)
    if task_id not in manager.tasks:
        raise HTTPException(404, NOT_DONE.format("update workflow"))
    fields = stored(payload)
    held = manager.tasks[task_id]
    if not fields.items() <= held.items():
        held.update(fields, datetime_updated=datetime.now().isoformat())
    return manager.task(task_id)


@router.get("/sequence/{sequence_id}", response_model=MRISequenceOut)
async def get_sequence(sequence_id: str, manager: Manager) -> Record:
    """Get a sequence with its files."""
    if not re.fullmatch("[0-9a-fA-F]{24}", sequence_id):
        raise ValueError
    if sequence_id.lower() not in manager.sequences:
        raise HTTPException(404, f"MRI sequence with ID {sequence_id} not found.")
    return manager.sequences[sequence_id.lower()]


@router.post("/result", status_code=201, response_model=ResultOut)
async def create_blank_result(task_id: str, manager: Manager) -> Record:
    """Create a result without files."""
    task_id = str(UUID(task_id))
    if task_id not in manager.tasks:
        raise HTTPException(400, "Parent (task_id) does not exist.")
    result: Record = {"type": "NOT_SET", "directory": "", "task_id": task_id, "id": str(uuid4())}
    manager.results[result["id"]] = result | {"datetime_created": datetime.now().isoformat()}
    return manager.results[result["id"]]


@router.put("/result/{result_id}", response_model=ResultOut)
async def set_result(result_id: str, payload: SetResult, manager: Manager) -> Record:
    """Set a result."""
    result_id = str(UUID(result_id))
    if result_id not in manager.results:
        raise HTTPException(404, NOT_DONE.format("update result"))
    manager.results[result_id].update(stored(payload))
    return manager.results[result_id]


@router.delete("/result/{result_id}", status_code=204)
async def delete_result(result_id: str, manager: Manager) -> None:
    """Delete a result."""
    if not manager.results.pop(str(UUID(result_id)), None):
        raise HTTPException(404, NOT_DONE.format("delete result"))


async def internal_server_error(request: Request, error: Exception) -> PlainTextResponse:
    """Answer an unexpected error."""
    return PlainTextResponse("Internal Server Error", 500)


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an application on a loopback port: a free one, if `port` is 0."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listener:
        # Its connections inherit this. Without it, an answer's body waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.001)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def running(port: int = 0, keep: bool = False, acquisitions: int = 1) -> Iterator[ExamManager]:
    """Run an exam manager on a loopback port: a free one, if `port` is 0."""
    app = FastAPI(title="Exam manager", exception_handlers={ValueError: internal_server_error})
    app.include_router(router)
    with serving(app, port) as url:
        app.state.manager = ExamManager(url, keep, acquisitions)
        yield app.state.manager


# How a shell sets the variables that are in a file, and how it writes one of them.
SHELLS = {"sh": ("export $(cat 'FILE')", r"$\1")}
if os.name == "nt":
    set_each = "ForEach-Object { $name, $value = $_ -split '='; Set-Item env:$name $value }"
    SHELLS = {"PowerShell": (f"Get-Content 'FILE' | {set_each}", r"$env:\1")}
    SHELLS["cmd"] = ('for /f "usebackq" %v in ("FILE") do @set %v', r"%\1%")
LIST = 'curl --oauth2-bearer "$TOKEN" "$EXAM_MANAGER_URL/api/v1/exam/task/all/$WORKFLOW_ID"'


def main() -> None:
    """Keep an exam manager running until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Keep an exam manager running until Ctrl-C.")
    parser.add_argument("--port", type=int, default=0, help="port (default: any free one)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="use the same token and ids each time, so that settings outlast a restart",
    )
    parser.add_argument("--tasks", type=int, default=1, help="acquisition tasks (default: 1)")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # As Ctrl-C.
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        try:
            manager = stack.enter_context(running(options.port, options.keep, options.tasks))
        except (OSError, OverflowError) as error:
            sys.exit(f"Port {options.port}: {error}")
        file = Path(stack.enter_context(TemporaryDirectory(prefix="exam-manager-")), "env")
        variables = {"EXAM_MANAGER_URL": manager.url}
        for name in ("token", "workflow_id", "task_id", "dag_task_id", "sequence_id"):
            variables[name.upper()] = getattr(manager, name)
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        variables["TOKEN"] = f"{manager.token[:32]}... ({len(manager.token)} digits)"
        print("An exam manager runs until you press Ctrl-C, with these variables:\n")
        print(*(f"  {name:16}  {value}" for name, value in variables.items()), sep="\n")
        for shell, (read, written) in SHELLS.items():
            print(f"\nIn another terminal ({shell}), this sets them, and then lists the tasks:\n")
            print("  " + read.replace("FILE", str(file)))
            print("  " + re.sub(r"\$(\w+)", written, LIST))
        print("\nIncoming requests, with decoded paths:\n", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
