"""Uploads by the example: the file is recorded, or kept, or refused, whatever fails meanwhile."""

import gc
import getpass
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

import exam_requests
import handlers
import uploads
from exam_manager import ExamManager, serving
from sockets import answer, reset

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operator.md").read_text("utf-8").partition("## Record a measurement")[2]
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
DATA = b"what was measured\x00\xff" * 2**16  # More than is kept in memory.
LATE = []
running = partial(serving, handlers.app)


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


def post(address, manager, headers=None, **form):
    url = f"{address}/tasks/{manager.task_id}/results"
    headers = {"Authorization": f"Bearer {manager.token}", **(headers or {})}
    return requests.post(url, headers=headers, timeout=10, **form)


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


def test_what_is_no_form_with_a_file_stores_nothing(exam_manager, data):
    with running() as address:
        for form in (
            {"data": b"measured", "headers": {"Content-Type": "application/x-mrd"}},
            {"files": {"file": (None, b"measured")}},
            {"files": {"file": ("empty.mrd", b"")}},
        ):
            assert post(address, exam_manager, **form).status_code == 422
        exam_manager.task_id = "task-1"
        assert post(address, exam_manager, files={"file": ("a", b"a")}).status_code == 422
    assert (exam_manager.results, list(data.glob("*"))) == ({}, [])


def test_two_forms_become_two_results_at_once_whatever_the_names(exam_manager, data, serve):
    both = threading.Barrier(2, timeout=5)

    def wait(connection, carry_out):
        both.wait()
        connection.sendall(carry_out())

    between(serve, exam_manager, b"POST", wait, wait)
    with running() as address, ThreadPoolExecutor() as threads:
        form = {"files": {"file": ("../../a.mrd", DATA)}}
        calls = [threads.submit(post, address, exam_manager, **form) for _ in range(2)]
        told = [call.result() for call in calls]
    assert [answer.status_code for answer in told] == [201, 201]
    held = recorded(data, exam_manager)
    assert len(held) == 2
    assert all(answer.json() in held for answer in told)


def form(meanwhile):
    """Yield the body of a form, and do something while it arrives."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + DATA
    meanwhile()
    yield b"\r\n--x--\r\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # starlette 0.27
def test_a_sender_that_hangs_up_leaves_nothing(exam_manager, data):
    with running() as address, pytest.raises(RuntimeError):
        post(address, exam_manager, headers=FORM, data=form(Mock(side_effect=RuntimeError)))
    gc.collect()
    assert (exam_manager.results, list(data.glob("*"))) == ({}, [])


def test_a_server_that_is_told_to_stop_first_records_a_form_that_is_arriving(exam_manager, data):
    server = ExitStack()
    address, stop = server.enter_context(running()), threading.Thread(target=server.close)
    body = form(lambda: (stop.start(), time.sleep(0.5)))
    assert post(address, exam_manager, headers=FORM, data=body).status_code == 201
    stop.join()
    assert len(recorded(data, exam_manager)) == 1


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
    between(serve, exam_manager, method, *[fault] * (2 if method == b"POST" else 1))
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
    code = "".join(re.findall("```python\n(.*?)```", PAGE, re.DOTALL))
    code = code.replace('"/data"', f'"{data.as_posix()}"')
    code = code.replace("/data/5d0c…_91ab…", path.parent.as_posix())
    monkeypatch.setattr(getpass, "getpass", lambda _: exam_manager.token)
    exec(code, {})  # noqa: S102 -- it is our own
    assert len(recorded(data, exam_manager)) == 1
    task = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    assert (task.status, task.progress) == ("FINISHED", 100)


@pytest.mark.parametrize("lost", [0, 1], ids=["", "after a creation whose answer was lost"])
def test_a_folder_that_cannot_be_renamed_is_told_and_leaves_one_result(
    serve, exam_manager, data, monkeypatch, caplog, lost
):
    between(serve, exam_manager, b"POST", *[FAULTS["dies after it"]] * lost)
    monkeypatch.setattr(Path, "rename", Mock(side_effect=[None, *[OSError(28, "No space")] * 9]))
    with pytest.raises(HTTPException, match="507.*stored, but not recorded: No space"):
        upload(exam_manager)
    (log,) = errors(caplog)
    assert log.startswith(f"Task {exam_manager.task_id} is not recorded: {data}")
    assert len(exam_manager.results) == 1


def test_a_folder_that_cannot_be_made_is_told_and_leaves_no_result(exam_manager, data, caplog):
    data.mkdir()
    (data / exam_manager.workflow_id).touch()
    with pytest.raises(HTTPException, match=r"507.*stored, but not recorded: \w"):
        upload(exam_manager)
    (log,) = errors(caplog)
    assert Path(log.split(": ")[1]).read_bytes() == DATA
    assert exam_manager.results == {}


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
