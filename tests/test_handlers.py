"""The handlers of the examples, over real HTTP and a real WebSocket."""

import base64
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from unittest.mock import Mock
from uuid import UUID

import pytest
import requests
from websockets.sync.client import connect

import exam_requests
import handlers
import uploads
from calls import NEVER, TASK_ID, TOKEN, task
from exam_manager import serving
from sockets import answer, reset

PATH = os.pathsep.join(sys.path)
DATA = b"what was measured\x00\xff" * 2**16  # More than is kept in memory.
FIELDS = {"start": {}, "progress": {"progress": 42}}
FIELDS["upload"] = {"data": base64.b64encode(DATA).decode()}


@contextmanager
def running():
    with serving(handlers.app, ws="websockets-sansio") as url:
        yield url.removeprefix("http://")


@pytest.fixture(scope="module")
def address():
    with running() as address:
        yield address


@pytest.fixture
def device(address):
    with connect(f"ws://{address}/device") as connection:
        yield connection


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "DATA_DIRECTORY", tmp_path / "data")
    monkeypatch.setattr(uploads, "REPEAT_SECONDS", 0.2)
    monkeypatch.setattr(uploads, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(uploads, "LATE_SECONDS", 0.2)
    return tmp_path / "data"


def read_task(address, task_id, token):
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"http://{address}/tasks/{task_id}", headers=headers, timeout=10)


def post_result(address, task_id, token, **form):
    form = form or {"files": {"file": ("../../a.mrd", DATA)}}
    head = {"Authorization": f"Bearer {token}", **form.pop("headers", {})}
    url = f"http://{address}/tasks/{task_id}/results"
    return requests.post(url, headers=head, timeout=20, **form)


def message(command, task_id, token, **fields):
    common = {"command": command, "task_id": task_id, "user_access_token": token}
    return json.dumps({**common, **FIELDS[command], **fields})


def ask(device, text):
    """Send a message and receive the answer to it, and see that the connection stays open."""
    device.send(text)
    received = json.loads(device.recv(timeout=10))
    device.send('{"command": "next"}')
    assert "Input tag 'next'" in device.recv(timeout=10)
    return received


def test_a_def_endpoint_returns_the_task(address, exam_manager):
    response = read_task(address, exam_manager.task_id, exam_manager.token)
    held = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    assert (response.status_code, response.json()) == (200, held.model_dump(mode="json"))


def test_the_file_of_a_form_becomes_a_result_whatever_its_name_is(address, exam_manager, data):
    response = post_result(address, exam_manager.task_id, exam_manager.token)
    (result,) = exam_requests.get_task(exam_manager.task_id, exam_manager.token).results
    assert (response.status_code, response.json()) == (201, result.model_dump(mode="json"))
    assert recorded(data, exam_manager.task_id, exam_manager.token) == [DATA]


def test_an_error_reaches_the_http_client(address, exam_manager):
    for call, task_id, status, detail in [
        (read_task, NEVER, 404, "Task not found"),
        (read_task, exam_manager.dag_task_id, 400, "it is not an acquisition task"),
        (post_result, NEVER, 404, "Task not found"),
    ]:
        response = call(address, task_id, exam_manager.token)
        assert response.status_code == status
        assert response.json()["detail"].endswith(detail)
    response = read_task(address, exam_manager.task_id, exam_manager.expired_token)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_device_starts_its_task(device, exam_manager):
    told = ask(device, message("start", exam_manager.task_id, exam_manager.token))
    held = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
    sequence = exam_requests.get_sequence(exam_manager.sequence_id, exam_manager.token)
    assert held.status == "STARTED"
    assert told["data"]["task"] == held.model_dump(mode="json")
    assert told["data"]["sequence"] == sequence.model_dump(mode="json", by_alias=True)


def test_a_device_reports_its_progress(device, exam_manager):
    for fields in ({"progress": 42}, {"progress": 100, "status": "FINISHED"}):
        told = ask(device, message("progress", exam_manager.task_id, exam_manager.token, **fields))
        held = exam_requests.get_task(exam_manager.task_id, exam_manager.token)
        assert told == {"command": "progress", "data": held.model_dump(mode="json")}
        assert held.model_dump(mode="json").items() >= fields.items()


def test_a_device_cannot_choose_where_its_upload_goes(device, exam_manager, data):
    names = {"id": "../id", "result_id": "../id", "directory": "/", "files": ["../raw.mrd"]}
    told = ask(device, message("upload", exam_manager.task_id, exam_manager.token, **names))
    (result,) = exam_requests.get_task(exam_manager.task_id, exam_manager.token).results
    assert told == {"command": "upload", "data": result.model_dump(mode="json")}
    assert recorded(data, exam_manager.task_id, exam_manager.token) == [DATA]


def test_an_error_is_one_feedback_message(device, exam_manager):
    for command, task_id, token, status, detail in [
        ("start", NEVER, exam_manager.token, 404, "Task not found"),
        ("start", exam_manager.dag_task_id, exam_manager.token, 400, "not an acquisition task"),
        ("progress", exam_manager.task_id, exam_manager.expired_token, 401, "Invalid token."),
        ("upload", exam_manager.task_id, "no token", 401, "the access token is not a bearer token"),
    ]:
        told = ask(device, message(command, task_id, token))
        assert told == {"command": "feedback", "status": status, "detail": told["detail"]}
        assert told["detail"].endswith(detail)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"\xff\x00", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ('{"command": "stop"}', "Input tag 'stop' found"),
        ('{"command": "start"}', "start: task_id: Field required"),
        (
            message("progress", TASK_ID, TOKEN, progress=101),
            "progress: progress: Input should be less",
        ),
        (message("progress", "..", TOKEN), "progress: task_id: Input should be a valid UUID"),
        (
            message("upload", TASK_ID, TOKEN, data="YQ=?"),
            "upload: data: Data should be valid base64",
        ),
    ],
)
def test_a_malformed_message_is_answered_with_its_error(device, text, detail):
    told = ask(device, text)
    assert told == {"command": "feedback", "status": 422, "detail": told["detail"]}
    assert told["detail"].startswith(detail)
    assert TOKEN not in told["detail"]


def test_a_device_may_hang_up_before_it_is_answered(serve, caplog):
    arrived, hung_up = threading.Event(), threading.Event()

    def late(connection, request):
        arrived.set()
        assert hung_up.wait(5)
        connection.sendall(answer(200, task()))

    serve(late)
    with running() as address:
        with connect(f"ws://{address}/device") as device:
            device.send(message("progress", NEVER, TOKEN))
            assert arrived.wait(5)
        hung_up.set()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


# An upload. Until the file is complete, nothing of it stays; from then on, nothing is deleted.


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


@pytest.fixture
def patient(monkeypatch):
    """Let the handlers repeat their calls until what is wrong has passed."""
    monkeypatch.setattr(uploads, "REPEAT_SECONDS", 20)


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
            if fault == "is late":  # It carries this out just after the next request.
                late.append(carry_out)
                connection.recv(1)
            elif fault:
                FAULTS.get(fault, fault)(connection, carry_out)
            else:
                told = carry_out()
                while late:
                    late.pop()()
                connection.sendall(told)

        serve(pass_on)

    return start


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
@pytest.mark.parametrize("fault", [*FAULTS, "is late"])
def test_an_upload_is_recorded_once_after_the_exam_manager(
    between, patient, short, exam_manager, data, caplog, method, fault
):
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
    start, aim, patient, short, data, monkeypatch, fault
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
    address, between, short, exam_manager, data, caplog, method, fault
):
    between(method, *[fault] * 99)
    told = post_result(address, exam_manager.task_id, exam_manager.token)
    why = kept(exam_manager, data, caplog)
    assert told.json() == {"detail": f"stored, but not recorded: {why}"}
    assert told.status_code in uploads.PASSING


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("call", ["get_task", "create_blank_result", "set_result"])
def test_a_complete_file_stays_whatever_is_raised(
    exam_manager, data, monkeypatch, caplog, error, call
):
    monkeypatch.setattr(exam_requests, call, Mock(side_effect=error))
    with pytest.raises(error):
        upload(exam_manager)
    assert kept(exam_manager, data, caplog) == f"{error.__name__}()"


def test_a_file_for_which_there_is_no_room_leaves_nothing(address, exam_manager, data, caplog):
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of a file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    form = {"files": {"file": ("a", DATA[: 2**16 + 1])}}  # It fits into memory.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        told = post_result(address, exam_manager.task_id, exam_manager.token, **form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (told.status_code, told.json()) == (507, {"detail": "not stored: File too large"})
    assert (exam_manager.results, list(data.iterdir())) == ({}, [])
    assert errors(caplog)[0].startswith(f"Nothing is stored for task {exam_manager.task_id}: ")


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    "form",
    [
        {"data": b"measured"},
        {"data": b"measured", "headers": {"Content-Type": "application/x-mrd"}},
        {"data": HEAD + b"cut off", "headers": {"Content-Type": "multipart/form-data"}},
        {"data": {"file": "measured"}},
        {"files": {"another": b"measured"}},
        {"files": {"file": (None, b"measured")}},
        {"files": {"file": ("empty.mrd", b"")}},
        {"task_id": "task-1"},
    ],
    ids=str,
)
def test_what_is_no_form_with_a_file_stores_nothing(address, exam_manager, data, form):
    ids = {"task_id": exam_manager.task_id, "token": exam_manager.token}
    assert 400 <= post_result(address, **ids | form).status_code < 500
    assert (exam_manager.results, list(data.glob("*"))) == ({}, [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # starlette 0.27
def test_a_sender_that_hangs_up_leaves_nothing(exam_manager, data, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    head = f"POST /tasks/{exam_manager.task_id}/results HTTP/1.1\r\nHost: here\r\n"
    head += f"Authorization: Bearer {exam_manager.token}\r\nContent-Length: 99999999\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    with running() as address:
        with socket.create_connection(address.split(":")) as sender:
            sender.sendall(head.encode() + HEAD + DATA)
            sender.shutdown(socket.SHUT_WR)
            assert not sender.recv(1)
    gc.collect()
    assert (exam_manager.results, list(tmp_path.iterdir())) == ({}, [])


def test_another_request_is_answered_while_calls_wait(address, device, serve):
    arrived, answered = threading.Barrier(4), threading.Event()

    def late(connection, request):
        if NEVER.encode() in request.partition(b"\r\n")[0]:
            arrived.wait(5)
            answered.wait(5)
        connection.sendall(answer(404, {"detail": "Task not found"}))

    serve(late)
    with ThreadPoolExecutor() as threads:
        waiting = [
            threads.submit(read_task, address, NEVER, TOKEN),
            threads.submit(post_result, address, NEVER, TOKEN),
            threads.submit(ask, device, message("start", NEVER, TOKEN)),
        ]
        arrived.wait(5)
        assert read_task(address, TASK_ID, TOKEN).status_code == 404
        assert not any(call.done() for call in waiting)
        answered.set()
