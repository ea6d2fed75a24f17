"""Uploads: until the file is complete, nothing of it stays; from then on, nothing is deleted."""

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
from fastapi import HTTPException

import exam_requests
import uploads
from sockets import answer, reset

PAGES = Path(__file__).parents[1] / "docs"
PAGE = (PAGES / "operator.md").read_text("utf-8").partition("## Record a measurement")[2]
PATH = os.pathsep.join(sys.path)
DATA = b"what was measured\x00\xff" * 2**12


def nap(seconds):
    time.sleep(seconds / 20)


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "DATA_DIRECTORY", tmp_path / "data")
    monkeypatch.setattr(uploads, "time", Mock(monotonic=time.monotonic, sleep=nap))
    return tmp_path / "data"


def upload(exam_manager, content=DATA):
    return uploads.store(UUID(exam_manager.task_id), BytesIO(content), exam_manager.token)


def recorded(data, task_id, token):
    """Return the files of a task's results; the data directory holds nothing else."""
    task = exam_requests.get_task(task_id, token)
    home = data / str(task.workflow_id) / task_id
    for result in task.results:
        told = (result.type, result.directory, result.files)
        assert told == ("MRD", str(home / str(result.id)), ["raw.mrd"])
    paths = {home / str(result.id) / "raw.mrd" for result in task.results}
    assert paths == {path for path in data.rglob("*") if path.is_file() or not [*path.iterdir()]}
    return sorted(path.read_bytes() for path in paths)


def errors(caplog):
    return [log.message for log in caplog.records if log.levelname == "ERROR"]


FAULTS = {
    "fails": lambda connection, carry_out: connection.sendall(answer(500)),
    "refuses": lambda connection, carry_out: connection.sendall(answer(401, {"detail": "No."})),
    "dies": lambda connection, carry_out: reset(connection),
    "dies after it": lambda connection, carry_out: (carry_out(), reset(connection)),
    "is silent": lambda connection, carry_out: connection.recv(1),  # Until the caller gives up.
    "is silent after it": lambda connection, carry_out: (carry_out(), connection.recv(1)),
}


@pytest.fixture
def between(exam_manager, serve):
    """Stand between the handlers and the exam manager, with faults for requests of a method."""
    address, late = exam_manager.url.removeprefix("http://").split(":"), []

    def start(method, *faults):
        faults = list(faults)

        def pass_on(connection, request):
            def carry_out():
                with socket.create_connection(address) as upstream:
                    upstream.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    return upstream.makefile("rb").read()

            fault = faults.pop(0) if faults and request.startswith(method) else None
            if fault == "is late":  # It carries this out shortly after the next request.
                late.append(carry_out)
                connection.recv(1)
            elif fault:
                FAULTS.get(fault, fault)(connection, carry_out)
            else:
                connection.sendall(carry_out())
                while late:
                    threading.Timer(0.1, late.pop()).start()

        serve(pass_on)

    return start


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
@pytest.mark.parametrize("fault", [*FAULTS, "is late"])
def test_an_upload_is_recorded_once_after_the_exam_manager(
    between, short, exam_manager, data, caplog, monkeypatch, method, fault
):
    if fault == "is late":
        monkeypatch.setattr(uploads.time, "sleep", lambda seconds: time.sleep(seconds / 5))
    between(method, fault, fault)
    upload(exam_manager)
    assert recorded(data, exam_manager.task_id, exam_manager.token) == [DATA]
    assert errors(caplog) == []


def test_two_uploads_for_a_task_do_not_take_the_same_result(between, exam_manager, data):
    both, created = threading.Barrier(2), threading.Event()

    def held_up(connection, carry_out):
        both.wait(5)
        told = carry_out()
        created.set()
        while not list(data.glob("*/*/*")):  # Until the other upload has taken this result.
            time.sleep(0.01)
        connection.sendall(told)

    def lost(connection, carry_out):
        both.wait(5)
        created.wait(5)
        FAULTS["dies after it"](connection, carry_out)

    between(b"POST", held_up, lost)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda content: upload(exam_manager, content), [b"one", b"two"]))
    assert recorded(data, exam_manager.task_id, exam_manager.token) == [b"one", b"two"]


def test_only_a_result_that_is_new_and_blank_and_not_taken_is_taken(between, exam_manager, data):
    exam_requests.create_blank_result(exam_manager.task_id, exam_manager.token)

    def sets_another(connection, carry_out):
        carry_out()
        [*exam_manager.results.values()][-1]["type"] = "NUMPY"
        reset(connection)

    def gives_another_away(connection, carry_out):
        carry_out()
        home = f"{exam_manager.tasks[exam_manager.task_id]['workflow_id']}/{exam_manager.task_id}"
        (data / home / [*exam_manager.results][-1] / "folder").mkdir(parents=True)
        reset(connection)

    between(b"POST", sets_another, gives_another_away)
    upload(exam_manager)
    types = [held["type"] for held in exam_manager.results.values()]
    assert types == ["NOT_SET", "NUMPY", "NOT_SET", "MRD"]


RUN = """
import sys, exam_manager
with exam_manager.running(int(sys.argv[1]), keep=True) as manager:
    print(manager.url, manager.task_id, manager.token, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start():
    """Run exam managers in processes of their own, all with the same ids and token."""
    with ExitStack() as stack:

        def start(port="0"):
            how = dict(stdin=-1, stdout=-1, text=True, env={**os.environ, "PYTHONPATH": PATH})
            process = subprocess.Popen([sys.executable, "-c", RUN, port], **how)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize("fault", ["stopped", "killed"])
def test_an_upload_is_recorded_once_after_the_exam_manager_was(
    start, aim, short, data, monkeypatch, fault
):
    if fault == "stopped" and not hasattr(signal, "SIGSTOP"):
        pytest.skip("Windows cannot stop a process")
    process, create = start(), exam_requests.create_blank_result
    url, task_id, token = process.stdout.readline().split()
    aim(url)

    def create_during_it(*arguments):
        monkeypatch.setattr(exam_requests, "create_blank_result", create)
        if fault == "stopped":
            process.send_signal(signal.SIGSTOP)
            threading.Timer(0.5, process.send_signal, [signal.SIGCONT]).start()
        else:
            process.kill()
            process.wait()
            start(url.rpartition(":")[2])
        return create(*arguments)

    monkeypatch.setattr(exam_requests, "create_blank_result", create_during_it)
    uploads.store(UUID(task_id), BytesIO(DATA), token)
    assert recorded(data, task_id, token) == [DATA]


def kept(exam_manager, data, caplog):
    """Return why a file is not recorded, from the one line of the log that names it."""
    (path,) = (path for path in data.rglob("*") if path.is_file())
    assert path.read_bytes() == DATA
    assert not list(data.glob("*.part"))
    start, log = f"Task {exam_manager.task_id} is not recorded: {path}: ", "".join(errors(caplog))
    assert log.startswith(start)
    return log.removeprefix(start)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
@pytest.mark.parametrize("fault", ["fails", "refuses", "dies", "is silent"])
def test_a_file_that_cannot_be_recorded_stays_and_its_sender_is_told_why(
    between, short, exam_manager, data, caplog, monkeypatch, method, fault
):
    monkeypatch.setattr(uploads, "REPEAT_SECONDS", 0.2)
    between(method, *[fault] * 99)
    with pytest.raises(HTTPException) as raised:
        upload(exam_manager)
    why = kept(exam_manager, data, caplog)
    assert raised.value.detail == f"stored, but not recorded: {why}"


REFUSED = partial(HTTPException, 403, "refused")


@pytest.mark.parametrize("error", [REFUSED, RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("call", ["get_task", "create_blank_result", "set_result"])
def test_a_complete_file_stays_and_can_be_recorded_afterwards_whatever_is_raised(
    exam_manager, data, monkeypatch, caplog, error, call
):
    failing = Mock(side_effect=error())
    with monkeypatch.context() as patch, pytest.raises(type(failing.side_effect)):
        patch.setattr(exam_requests, call, failing)
        upload(exam_manager)
    assert failing.call_count == 1
    assert kept(exam_manager, data, caplog) in {"refused", repr(failing.side_effect)}
    (folder,) = (path.parent for path in data.rglob("raw.mrd"))
    look, create, record = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    code = look.replace("/data/5d0c…_91ab…", folder.as_posix()).replace(
        "5d0c…", exam_manager.task_id
    )
    if folder.parent == data:
        code += create.replace("/data", data.as_posix())
    monkeypatch.setattr(getpass, "getpass", lambda _: exam_manager.token)
    exec(code + record, {})  # noqa: S102 -- it is our own
    assert recorded(data, exam_manager.task_id, exam_manager.token) == [DATA]
    task = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    assert (task.status, task.progress) == ("FINISHED", 100)


def test_a_folder_that_cannot_be_renamed_leaves_one_blank_result(
    exam_manager, data, monkeypatch, caplog
):
    complete = Mock(side_effect=[data / "complete", OSError(28, "No space left on device")])
    monkeypatch.setattr(uploads, "rename", complete)
    with pytest.raises(OSError, match="No space left"):
        upload(exam_manager)
    assert (len(exam_manager.results), len(errors(caplog))) == (1, 1)


def test_a_file_for_which_there_is_no_room_leaves_nothing(exam_manager, data, caplog):
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) - 1, limits[1]))
    try:
        with pytest.raises(HTTPException, match="507.*not stored: File too large"):
            upload(exam_manager)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (exam_manager.results, list(data.iterdir())) == ({}, [])
    assert errors(caplog)[0].startswith(f"Nothing is stored for task {exam_manager.task_id}: ")


def test_a_file_that_cannot_be_flushed_leaves_nothing(exam_manager, data, monkeypatch):
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(HTTPException, match="507.*not stored: Input/output error"):
        upload(exam_manager)
    assert (exam_manager.results, list(data.iterdir())) == ({}, [])
