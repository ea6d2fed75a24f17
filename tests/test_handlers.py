"""The handlers of the examples, over real HTTP and a real WebSocket."""

import base64
import gc
import json
import logging
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

import exam_requests
import handlers
import uploads
from calls import NEVER, TASK_ID, TOKEN, task
from exam_manager import serving
from sockets import answer

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
    monkeypatch.setattr(uploads, "REPEAT_SECONDS", 0.1)
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


def test_the_file_of_a_form_becomes_a_result_whatever_its_name_is(address, exam_manager, data):
    response = post_result(address, exam_manager.task_id, exam_manager.token)
    (result,) = exam_requests.get_task(exam_manager.task_id, exam_manager.token).results
    assert (response.status_code, response.json()) == (201, result.model_dump(mode="json"))
    assert [path.read_bytes() for path in data.rglob("*") if path.is_file()] == [DATA]
    assert Path(result.directory, *result.files).is_relative_to(data)


def test_an_error_reaches_the_http_client(address, exam_manager):
    for call, task_id, token, status, detail in [
        (read_task, NEVER, exam_manager.token, 404, "Task not found"),
        (read_task, exam_manager.task_id, exam_manager.expired_token, 401, "Invalid token."),
        (post_result, NEVER, exam_manager.token, 404, "stored, but not recorded: Error getting"),
    ]:
        response = call(address, task_id, token)
        assert (response.status_code, detail in response.json()["detail"]) == (status, True)


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
    assert [path.read_bytes() for path in data.rglob("*") if path.is_file()] == [DATA]


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


MALFORMED = {
    b"\xff\x00": "Invalid JSON",
    "[]": "Input should be an object",
    '{"command": "stop"}': "Input tag 'stop' found",
    '{"command": "start"}': "start: task_id: Field required",
    message("progress", TASK_ID, TOKEN, progress=101): "progress: progress: Input should be less",
    message("progress", "..", TOKEN): "progress: task_id: Input should be a valid UUID",
    message("upload", TASK_ID, TOKEN, data="YQ=?"): "upload: data: Data should be valid base64",
}


@pytest.mark.parametrize("text", MALFORMED, ids=MALFORMED.values())
def test_a_malformed_message_is_answered_with_its_error(device, text):
    told = ask(device, text)
    assert told == {"command": "feedback", "status": 422, "detail": told["detail"]}
    assert told["detail"].startswith(MALFORMED[text])
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
