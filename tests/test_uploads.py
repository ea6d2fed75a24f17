"""The handlers of the examples, over HTTP and a WebSocket, and what becomes of their uploads."""

import base64
import gc
import getpass
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock
from uuid import UUID

import pytest
import requests
from fastapi import HTTPException
from websockets.sync.client import connect

import exam_requests
import handlers
import uploads
from calls import TASK_ID, TOKEN, UNKNOWN_ID
from exam_manager import ExamManager, serving
from sockets import answer, reset

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operator.md").read_text("utf-8").partition("## Record a measurement")[2]
DATA = b"what was measured\x00\xff" * 2**16  # More than is kept in memory.
BASE64 = base64.b64encode(DATA).decode()
LATE = []
running = partial(serving, handlers.app, ws="websockets-sansio")


@pytest.fixture(scope="module")
def address():
    with running() as address:
        yield address


@pytest.fixture
def device(address):
    with connect(f"{address.replace('http', 'ws')}/device") as device:
        yield device


def sleep(seconds):
    """Wait for a shorter time; after five seconds, the exam manager carries out what is late."""
    time.sleep(seconds / 20)
    while LATE and seconds >= 5:
        LATE.pop()()


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "DATA_DIRECTORY", tmp_path / "data")
    monkeypatch.setattr(uploads, "time", Mock(monotonic=time.monotonic, sleep=sleep))
    LATE.clear()
    return tmp_path / "data"


def http(method, url, token, headers=None, **form):
    headers = {"Authorization": f"Bearer {token}", **(headers or {})}
    return requests.request(method, url, headers=headers, timeout=10, **form)


def message(command, task_id, token, **fields):
    common = {"command": command, "task_id": task_id, "user_access_token": token}
    return json.dumps(common | fields)


def ask(device, text):
    """Send a message and receive the answer to it, and see that the connection stays open."""
    device.send(text)
    received = json.loads(device.recv(timeout=10))
    device.send('{"command": "next"}')
    assert "Input tag 'next'" in device.recv(timeout=10)
    return received


def upload(manager):
    return uploads.store(UUID(manager.task_id), BytesIO(DATA), manager.token)


def recorded(data, manager):
    """Return the results of the task; all files are in their places, and no other is there."""
    task = uploads.repeat(exam_requests.get_task, manager.task_id, manager.token)
    home = data / str(task.workflow_id) / manager.task_id
    for result in task.results:
        told = (result.type, result.directory, result.files)
        assert told == ("MRD", str(home / str(result.id)), ["raw.mrd"])
    paths = {home / str(result.id) / "raw.mrd" for result in task.results}
    assert paths == {path for path in data.rglob("*") if path.is_file() or not [*path.iterdir()]}
    assert {path.read_bytes() for path in paths} == {DATA}
    return [result.model_dump(mode="json") for result in task.results]


def errors(caplog):
    return [log.message for log in caplog.records if log.levelname == "ERROR"]


def test_a_device_starts_its_task(address, device, exam_manager):
    told = ask(device, message("start", exam_manager.task_id, exam_manager.token))["data"]
    held = http("GET", f"{address}/tasks/{exam_manager.task_id}", exam_manager.token).json()
    assert (told["task"], held["status"]) == (held, "STARTED")
    assert told["sequence"].items() >= exam_manager.sequences[exam_manager.sequence_id].items()


def test_a_device_reports_its_progress(address, device, exam_manager):
    for fields in ({"progress": 42}, {"progress": 100, "status": "FINISHED"}):
        told = ask(device, message("progress", exam_manager.task_id, exam_manager.token, **fields))
        held = http("GET", f"{address}/tasks/{exam_manager.task_id}", exam_manager.token).json()
        assert told == {"command": "progress", "data": held}
        assert held.items() >= {"status": "INPROGRESS", **fields}.items()


def test_a_file_becomes_a_result_wherever_its_sender_wants_it(address, device, exam_manager, data):
    task_id, token = exam_manager.task_id, exam_manager.token
    form = {"file": ("../../a.mrd", DATA)}
    posted = http("POST", f"{address}/tasks/{task_id}/results", token, files=form)
    names = {"id": "../id", "result_id": "../id", "directory": "/", "files": ["../raw.mrd"]}
    told = ask(device, message("upload", task_id, token, data=BASE64, **names))
    assert (posted.status_code, told["command"]) == (201, "upload")
    assert [posted.json(), told["data"]] == recorded(data, exam_manager)


def test_an_error_is_one_feedback_message(device):
    for text, status, detail in [
        (message("upload", TASK_ID, "no token", data=BASE64), 401, "stored, but not recorded: "),
        (message("progress", TASK_ID, TOKEN, progress=101), 422, "progress: progress: Input shou"),
        (message("progress", "..", TOKEN).encode(), 422, "progress: task_id: Input should be a v"),
        (message("upload", TASK_ID, TOKEN, data="YQ=?"), 422, "upload: data: Data should be valid"),
        (b"\xff\x00", 422, "Invalid JSON"),
    ]:
        told = ask(device, text)
        assert told == {"command": "feedback", "status": status, "detail": told["detail"]}
        assert told["detail"].startswith(detail)
        assert TOKEN not in told["detail"]


def test_what_is_no_form_with_a_file_stores_nothing(address, exam_manager, data):
    for task_id, form in (
        (exam_manager.task_id, {"data": b"measured"}),
        (exam_manager.task_id, {"data": b"x", "headers": {"Content-Type": "application/x-mrd"}}),
        (exam_manager.task_id, {"files": {"file": (None, b"measured")}}),
        (exam_manager.task_id, {"files": {"file": ("empty.mrd", b"")}}),
        ("task-1", {"files": {"file": ("a.mrd", b"measured")}}),
    ):
        told = http("POST", f"{address}/tasks/{task_id}/results", exam_manager.token, **form)
        assert told.status_code == 422
        assert (exam_manager.results, list(data.glob("*"))) == ({}, [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # starlette 0.27
def test_a_sender_that_hangs_up_leaves_nothing(exam_manager, data):
    def cut_off():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + DATA
        raise RuntimeError

    head = {"Content-Type": "multipart/form-data; boundary=x"}
    with running() as address, pytest.raises(RuntimeError):
        url = f"{address}/tasks/{exam_manager.task_id}/results"
        http("POST", url, exam_manager.token, headers=head, data=cut_off())
    gc.collect()
    assert (exam_manager.results, list(data.glob("*"))) == ({}, [])


def test_a_device_may_hang_up_before_it_is_answered(serve, caplog):
    step = threading.Barrier(2, timeout=5)

    def late(connection, request):
        step.wait()
        step.wait()
        connection.sendall(answer(404, {"detail": "Task not found"}))

    serve(late)
    with running() as address:
        with connect(f"{address.replace('http', 'ws')}/device") as device:
            device.send(message("start", UNKNOWN_ID, TOKEN))
            step.wait()
        step.wait()
    assert errors(caplog) == []


def test_calls_that_wait_hold_up_no_other_and_are_answered_in_the_end(address, device, serve):
    arrived, answered = threading.Barrier(4), threading.Event()

    def late(connection, request):
        if UNKNOWN_ID.encode() in request:
            arrived.wait(5)
            answered.wait(5)
        connection.sendall(answer(404, {"detail": "Task not found"}))

    serve(late)
    url, form = f"{address}/tasks/{UNKNOWN_ID}", {"file": ("a.mrd", DATA)}
    with ThreadPoolExecutor() as threads:
        told = threads.submit(ask, device, message("start", UNKNOWN_ID, TOKEN))
        read = threads.submit(http, "GET", url, TOKEN)
        posted = threads.submit(http, "POST", f"{url}/results", TOKEN, files=form)
        arrived.wait(5)
        assert http("GET", f"{address}/tasks/{TASK_ID}", TOKEN).status_code == 404
        assert not any(call.done() for call in (told, read, posted))
        answered.set()
    why = "Error getting task: Task not found"
    assert told.result() == {"command": "feedback", "status": 404, "detail": why}
    assert read.result().json() == {"detail": why}
    assert posted.result().json() == {"detail": f"stored, but not recorded: {why}"}


FAULTS = {
    "fails": lambda connection, carry_out: connection.sendall(answer(500)),
    "refuses": lambda connection, carry_out: connection.sendall(answer(401, {"detail": "No."})),
    "dies": lambda connection, carry_out: reset(connection),
    "dies after it": lambda connection, carry_out: (carry_out(), reset(connection)),
    "is silent": lambda connection, carry_out: connection.recv(1),  # Until the caller gives up.
    "is silent after it": lambda connection, carry_out: (carry_out(), connection.recv(1)),
    "is late": lambda connection, carry_out: (LATE.append(carry_out), connection.recv(1)),
}


def between(serve, exam_manager, method, *faults):
    """Stand before the exam manager, with faults for the first requests of a method."""
    address, faults = exam_manager.url.removeprefix("http://").split(":"), list(faults)

    def pass_on(connection, request):
        def carry_out():
            with socket.create_connection(address) as upstream:
                upstream.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                return upstream.makefile("rb").read()

        if faults and request.startswith(method):
            faults.pop(0)(connection, carry_out)
        else:
            connection.sendall(carry_out())

    serve(pass_on)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_upload_is_recorded_once_after_the_exam_manager(
    serve, exam_manager, data, monkeypatch, caplog, method, fault
):
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 0.5)
    between(serve, exam_manager, method, fault, fault)
    upload(exam_manager)
    sleep(5)
    assert len(recorded(data, exam_manager)) == 1
    assert errors(caplog) == []


@pytest.mark.parametrize("fault", ["stopped", "killed"])
def test_an_upload_is_recorded_once_after_the_exam_manager_was(serve, data, monkeypatch, fault):
    if fault == "stopped" and not hasattr(signal, "SIGSTOP"):
        pytest.skip("Windows cannot stop a process")
    monkeypatch.setenv("TMPDIR", str(data.parent))
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 0.5)
    port = 20000 + os.getpid() % 10000
    manager = ExamManager(f"http://127.0.0.1:{port}", keep=True)  # It has the same ids and token.
    command = [sys.executable, ROOT / "examples/exam_manager.py", "--keep", f"--port={port}"]
    with ExitStack() as stack:

        def start():
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
            return process

        def during_it(connection, carry_out):
            if fault == "stopped":
                process.send_signal(signal.SIGSTOP)
                threading.Timer(1, process.send_signal, [signal.SIGCONT]).start()
                carry_out()
            else:
                process.kill()
                process.wait()
                start()

        process = start()
        between(serve, manager, b"POST", during_it)
        upload(manager)
        assert len(recorded(data, manager)) == 1


def test_only_a_result_that_is_new_and_blank_and_not_taken_is_taken(serve, exam_manager, data):
    exam_requests.create_blank_result(exam_manager.task_id, exam_manager.token)
    home = data / exam_manager.workflow_id / exam_manager.task_id

    def taken(connection, carry_out):
        """Let another upload, whose answer was lost, take this result, and leave its own."""
        told = carry_out()
        (home / [*exam_manager.results][-1] / "folder").mkdir(parents=True)
        for fields in ({"type": "DICOM"}, {"files": ["a.txt"]}, {}):
            carry_out()
            [*exam_manager.results.values()][-1].update(fields)
        connection.sendall(told)

    between(serve, exam_manager, b"POST", taken)
    upload(exam_manager)
    types = [result["type"] for result in exam_manager.results.values()]
    assert types == ["NOT_SET", "NOT_SET", "DICOM", "NOT_SET", "MRD"]


RAISED = {
    "refused": partial(HTTPException, 403, "refused"),
    "away": partial(HTTPException, 503, "away"),
    "KeyboardInterrupt()": KeyboardInterrupt,
}


@pytest.mark.parametrize("why", RAISED)
@pytest.mark.parametrize("call", ["get_task", "create_blank_result", "set_result"])
def test_a_complete_file_stays_and_can_be_recorded_afterwards_whatever_is_raised(
    exam_manager, data, monkeypatch, caplog, why, call
):
    failing = Mock(side_effect=RAISED[why]())
    with monkeypatch.context() as patch, pytest.raises(type(failing.side_effect)) as raised:
        patch.setattr(uploads, "REPEAT_SECONDS", 0.1)
        patch.setattr(exam_requests, call, failing)
        upload(exam_manager)
    assert failing.call_count in ({2, 3, 4} if why == "away" else {1})
    told = f"stored, but not recorded: {why}"
    assert getattr(raised.value, "detail", told) == told
    (path,) = (path for path in data.rglob("*") if path.is_file())
    assert errors(caplog) == [f"Task {exam_manager.task_id} is not recorded: {path}: {why}"]
    look, create, record = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    code = look.replace("/data/5d0c…_91ab…", path.parent.as_posix())
    code = code.replace("5d0c…", exam_manager.task_id)
    if path.parents[1] == data:
        code += create.replace("/data", data.as_posix())
    monkeypatch.setattr(getpass, "getpass", lambda _: exam_manager.token)
    exec(code + record, {})  # noqa: S102 -- it is our own
    assert len(recorded(data, exam_manager)) == 1
    task = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    assert (task.status, task.progress) == ("FINISHED", 100)


def test_a_folder_that_cannot_be_renamed_leaves_one_result(exam_manager, data, monkeypatch, caplog):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(uploads, "rename", Mock(side_effect=[data / "complete", *[full] * 9]))
    text = message("upload", exam_manager.task_id, exam_manager.token, data=BASE64)
    assert json.loads(handlers.reply(text))["detail"] == "Internal Server Error"
    assert "is not recorded" in errors(caplog)[0]
    assert len(exam_manager.results) == 1


def test_a_file_that_cannot_be_written_leaves_nothing(exam_manager, data, monkeypatch, caplog):
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) - 1, limits[1]))
    try:
        with pytest.raises(HTTPException, match="507.*not stored: File too large"):
            upload(exam_manager)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(HTTPException, match="507.*not stored: Input/output error"):
        upload(exam_manager)
    assert (exam_manager.results, list(data.iterdir())) == ({}, [])
    start = f"Nothing is stored for task {exam_manager.task_id}: "
    assert [log.startswith(start) for log in errors(caplog)] == [True, True]
