"""The handlers of the examples, over real HTTP and a real WebSocket."""

import base64
import json
import logging
import os
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
import requests
import tenacity
from fastapi import HTTPException
from websockets.sync.client import connect

import exam_requests
import handlers
from calls import NEVER, TOKEN, task
from exam_manager import serving
from sockets import answer

DATA = b"what was measured\x00\xff"
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
    monkeypatch.setattr(handlers, "DATA_DIRECTORY", tmp_path / "data")
    return tmp_path / "data"


def read_task(address, task_id, token):
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"http://{address}/tasks/{task_id}", headers=headers, timeout=10)


def post_result(address, task_id, token):
    head = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-mrd"}
    return requests.post(f"http://{address}/tasks/{task_id}/results", DATA, headers=head, timeout=9)


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


def test_an_async_def_endpoint_stores_a_result(address, exam_manager, data):
    response = post_result(address, exam_manager.task_id, exam_manager.token)
    (result,) = exam_requests.get_task(exam_manager.task_id, exam_manager.token).results
    assert (response.status_code, response.json()) == (201, result.model_dump(mode="json"))
    assert (result.type, result.directory) == ("MRD", str(data / str(result.id)))
    assert [Path(result.directory, file).read_bytes() for file in result.files] == [DATA]


def test_an_error_reaches_the_http_client(address, exam_manager):
    for call, task_id, status, detail in [
        (read_task, NEVER, 404, "Task not found"),
        (read_task, exam_manager.dag_task_id, 400, "it is not an acquisition task"),
        (post_result, NEVER, 400, "Parent (task_id) does not exist."),
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
    assert [path.name for path in data.iterdir()] == [str(result.id)]


def test_an_error_is_one_feedback_message(device, exam_manager):
    for command, task_id, token, status, detail in [
        ("start", NEVER, exam_manager.token, 404, "Task not found"),
        ("start", exam_manager.dag_task_id, exam_manager.token, 400, "not an acquisition task"),
        ("progress", "..", exam_manager.token, 404, "the id is '..'"),
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
        (message("progress", "", TOKEN, progress=101), "progress: progress: Input should be less"),
        (message("upload", "", TOKEN, data="YQ=?"), "upload: data: Data should be valid base64"),
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


@pytest.fixture
def upload(exam_manager, monkeypatch):
    """Upload without pauses between the tries to record it."""
    monkeypatch.setattr(handlers.repeat, "wait", tenacity.wait_none())
    monkeypatch.setattr(handlers.repeat, "stop", tenacity.stop_after_attempt(3))
    return lambda: handlers.store(exam_manager.task_id, DATA, exam_manager.token)


def test_an_upload_whose_result_cannot_be_created_leaves_nothing(upload, exam_manager, data):
    exam_manager.token = exam_manager.expired_token
    with pytest.raises(HTTPException, match="Invalid token"):
        upload()
    assert (exam_manager.results, data.exists()) == ({}, False)


def test_an_upload_that_cannot_be_written_leaves_no_file_and_no_result(upload, exam_manager, data):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) - 1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            upload()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (exam_manager.results, list(data.iterdir())) == ({}, [])


@pytest.mark.parametrize("deletion_fails", [False, True])
@pytest.mark.parametrize("first", [OSError("first"), KeyboardInterrupt("first")])
def test_an_upload_that_breaks_off_leaves_no_file_and_raises_the_cause(
    upload, exam_manager, data, monkeypatch, first, deletion_fails
):
    monkeypatch.setattr(os, "replace", Mock(side_effect=first))
    if deletion_fails:
        second = Mock(side_effect=HTTPException(503, "second"))
        monkeypatch.setattr(exam_requests, "delete_blank_result", second)
    with pytest.raises(type(first), match="first"):
        upload()
    assert (len(exam_manager.results), list(data.iterdir())) == (deletion_fails, [])


def test_an_upload_deletes_no_folder_that_was_there_before(upload, exam_manager, data, monkeypatch):
    blank = exam_requests.create_blank_result(exam_manager.task_id, exam_manager.token)
    monkeypatch.setattr(exam_requests, "create_blank_result", Mock(return_value=blank))
    (data / str(blank.id) / "older").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        upload()
    assert (exam_manager.results, (data / str(blank.id) / "older").exists()) == ({}, True)


@pytest.mark.parametrize("error", [401, 404, 422, 500, 502, 503, 504, RuntimeError(), SystemExit()])
def test_a_complete_file_stays_even_if_recording_fails(
    upload, exam_manager, data, monkeypatch, caplog, error
):
    call = Mock(side_effect=HTTPException(error) if isinstance(error, int) else error)
    monkeypatch.setattr(exam_requests, "set_result", call)
    with pytest.raises(type(call.side_effect)):
        upload()
    ((result_id, held),) = exam_manager.results.items()
    path = data / result_id / "raw.mrd"
    assert [*path.parent.iterdir()] == [path]
    assert (path.read_bytes(), held["type"]) == (DATA, "NOT_SET")
    assert call.call_count == (3 if error in {502, 503, 504} else 1)
    (log,) = [log.message for log in caplog.records if log.levelname == "ERROR"]
    assert log == f"Result {result_id} of task {exam_manager.task_id} is not recorded: {path}"


@pytest.mark.parametrize("name", ["create_blank_result", "set_result"])
def test_an_upload_is_recorded_after_a_brief_failure(upload, exam_manager, monkeypatch, name):
    moment = [HTTPException(503), HTTPException(504), DEFAULT]
    call = Mock(side_effect=moment, wraps=getattr(exam_requests, name))
    monkeypatch.setattr(exam_requests, name, call)
    assert upload().type == "MRD"
    assert [held["type"] for held in exam_manager.results.values()] == ["MRD"]


def test_an_upload_whose_last_answer_is_lost_is_recorded_and_complete(
    upload, exam_manager, data, serve, monkeypatch
):
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 1.0)
    monkeypatch.setattr(handlers.repeat, "stop", tenacity.stop_after_attempt(1))
    address = exam_manager.url.removeprefix("http://").split(":")

    def late(connection, request):
        with socket.create_connection(address) as upstream:
            upstream.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = upstream.makefile("rb").read()
        if not request.startswith(b"PUT"):
            connection.sendall(answer)

    serve(late)
    with pytest.raises(HTTPException, match="sent nothing for 1 s"):
        upload()
    (held,) = exam_manager.results.values()
    assert Path(held["directory"], *held["files"]).read_bytes() == DATA


def test_calls_are_repeated_for_ten_seconds_with_growing_pauses():
    pauses = [handlers.repeat.wait(Mock(attempt_number=number)) for number in range(1, 6)]
    assert (pauses, handlers.repeat.stop.max_delay) == ([0.5, 1, 2, 4, 4], 10)


def test_another_request_is_answered_while_calls_wait(address, device, serve):
    arrived, answered = threading.Barrier(4), threading.Event()

    def late(connection, request):
        if b"slow" in request.partition(b"\r\n")[0]:
            arrived.wait(5)
            answered.wait(5)
        connection.sendall(answer(404, {"detail": "Task not found"}))

    serve(late)
    with ThreadPoolExecutor() as threads:
        waiting = [
            threads.submit(read_task, address, "slow", TOKEN),
            threads.submit(post_result, address, "slow", TOKEN),
            threads.submit(ask, device, message("start", "slow", TOKEN)),
        ]
        arrived.wait(5)
        assert read_task(address, "quick", TOKEN).status_code == 404
        assert not any(call.done() for call in waiting)
        answered.set()
