"""What a caller gets for each fault of a network or a server, on real sockets."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from pydantic import field_serializer

import exam_requests
from calls import (
    CALLS,
    GET_SEQUENCE,
    GET_TASK,
    PUTS,
    SET_RESULT,
    SET_TASK,
    TOKEN,
    Call,
    called,
    each,
    fail_at_once,
    result_payload,
    task,
    task_payload,
)
from sockets import Answer, Server, answer, close, reset

Serve = Callable[[Answer], Server]
BODY = json.dumps(task()).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def sends(*pieces: bytes, then: Callable[[socket.socket], Any] = close) -> Answer:
    """Answer with these bytes, and then close, reset or (`quiet`) wait."""

    def send(connection: socket.socket, _: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
        then(connection)

    return send


def drips(fast: bytes, slow: bytes) -> Answer:
    """Answer with one byte every 50 ms; each wait is short, the whole is not."""

    def send(connection: socket.socket, _: bytes) -> None:
        connection.sendall(fast)
        for byte in slow:
            time.sleep(0.05)
            connection.sendall(bytes([byte]))

    return send


def floods(fast: bytes, piece: bytes) -> Answer:
    """Answer without an end."""

    def send(connection: socket.socket, _: bytes) -> None:
        connection.sendall(fast)
        while True:
            connection.sendall(piece)

    return send


def quiet(connection: socket.socket) -> None:
    """Send nothing more, and keep the connection open."""


FUNCTIONS = sorted(call.function for call in CALLS)
UNCONNECTED = [f"{call.what}: no connection to the exam manager in 0.2 s" for call in CALLS]
SILENT = "the exam manager sent nothing for 0.2 s"
SLOW = "the call took longer than 0.5 s"
DELAYS = {
    "silent after accepting": (sends(then=quiet), SILENT),
    "silent within the status line": (sends(b"HTTP/1.1 20", then=quiet), SILENT),
    "silent within the headers": (sends(HEAD[:-2], then=quiet), SILENT),
    "silent before the body": (sends(HEAD, then=quiet), SILENT),
    "silent within the body": (sends(HEAD, BODY[:99], then=quiet), SILENT),
    "silent within a chunk": (sends(CHUNKED, b"5\r\n{", then=quiet), SILENT),
    "dripping status line": (drips(b"", HEAD + BODY), SLOW),
    "dripping headers": (drips(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 90), SLOW),
    "dripping body": (drips(HEAD, BODY), SLOW),
    "dripping chunks": (drips(CHUNKED, b"1\r\n{\r\n" * 99), SLOW),
    "dripping refusal": (drips(b"HTTP/1.1 404 N\r\nContent-Length: 99\r\n\r\n", b"a" * 99), SLOW),
}


@pytest.mark.parametrize("delay", DELAYS)
def test_a_delay_is_a_504_that_names_the_limit(
    serve: Serve, delay: str, short: None, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour, why = DELAYS[delay]
    server = serve(behaviour)
    assert fail_at_once(caplog, 504) == [f"{call.what}: {why}" for call in CALLS]
    assert sorted(called(request).function for request in server.requests) == FUNCTIONS


def test_a_wait_ends_with_the_call(
    serve: Serve, short: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serve(sends(then=quiet))
    monkeypatch.setattr(exam_requests, "_WAIT_SECONDS", 60.0)
    started = time.monotonic()
    assert fail_at_once(caplog, 504) == [f"{call.what}: {SLOW}" for call in CALLS]
    assert time.monotonic() - started < 10


FAULTS: dict[str, tuple[Answer, set[int]]] = {
    # No connection.
    "closed without an answer": (sends(), {503}),
    "reset without an answer": (sends(then=reset), {503}),
    "reset within the headers": (sends(HEAD[:-2], then=reset), {503}),
    "reset within the body": (sends(HEAD, BODY[:99], then=reset), {503}),
    "cut short within the headers": (sends(HEAD[:-2]), {502, 503}),
    "cut short within the body": (sends(HEAD, BODY[:99]), {503}),
    "cut short within a chunk": (sends(CHUNKED, b"ff\r\n{"), {502, 503}),
    "cut short between chunks": (sends(CHUNKED, b"1\r\n{\r\n"), {502, 503}),
    # Not HTTP.
    "another protocol": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), {502}),
    "a body without a head": (sends(BODY), {502}),
    "binary": (sends(bytes(range(256)) * 4), {502}),
    "a status that is none": (sends(b"HTTP/1.1 abc OK\r\n\r\n"), {502}),
    "a status of four digits": (sends(b"HTTP/1.1 2000 OK\r\n\r\n"), {502}),
    "an unknown version": (sends(b"HTTP/3.7 200 OK\r\n\r\n"), {502}),
    "an endless status line": (floods(b"HTTP/1.1 200 ", b"O" * 2**16), {502}),
    "thousands of headers": (sends(HEAD[:-2], b"X-A: b\r\n" * 5000, b"\r\n", BODY), {502}),
    "an endless header": (floods(HEAD[:-2] + b"X: ", b"y" * 2**16), {502}),
    # Bad framing.
    "a length that is no number": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", BODY),
        {502},
    ),
    "a negative length": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BODY), {502}),
    "two lengths": (sends(HEAD[:-2] + b"Content-Length: 7\r\n\r\n", BODY), {502}),
    "a chunk size that is no number": (sends(CHUNKED, b"ten\r\n" + BODY), {502}),
    "a negative chunk size": (sends(CHUNKED, b"-5\r\n" + BODY), {502}),
    "a chunk size without an end": (sends(CHUNKED, b"f" * 2**17), {502}),
    # Bad encoding.
    "not the gzip that it says": (
        sends(HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", BODY),
        {502},
    ),
    "not the deflate that it says": (
        sends(HEAD[:-2] + b"Content-Encoding: deflate\r\n\r\n", BODY),
        {502},
    ),
    "encoded twice": (
        sends(HEAD[:-2] + b"Content-Encoding: gzip, gzip\r\n\r\n", gzip.compress(BODY)),
        {502},
    ),
    "encoded twice, in two headers": (
        sends(HEAD[:-2] + b"Content-Encoding: gzip\r\n" * 2 + b"\r\n", gzip.compress(BODY)),
        {502},
    ),
    # Bad heads, which urllib3 logs with what they hold.
    "a header without a colon": (sends(HEAD[:-2] + TOKEN.encode() + b"\r\n\r\n", BODY), {502}),
    "a header with a blank": (
        sends(HEAD[:-2] + b"X : " + TOKEN.encode() + b"\r\n\r\n", BODY),
        {502},
    ),
    "a header that continues none": (
        sends(HEAD.replace(b"OK\r\n", b"OK\r\n " + TOKEN.encode() + b"\r\n"), BODY),
        {502},
    ),
    "a last header that is none": (
        sends(HEAD[:-2] + b"From " + TOKEN.encode() + b"\r\n\r\n", BODY),
        {502},
    ),
    # Too much.
    "an endless body": (floods(b"HTTP/1.1 200 OK\r\n\r\n", b"7" * 2**16), {502}),
    "an endless chunked body": (floods(CHUNKED, b"400\r\n" + b"7" * 1024 + b"\r\n"), {502}),
    "an endless chunk": (floods(CHUNKED + b"fffffffffff\r\n", b"7" * 2**16), {502}),
    "a refusal with an endless body": (floods(b"HTTP/1.1 404 N\r\n\r\n", b"7" * 2**16), {502}),
    "a redirect with an endless body": (
        floods(b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n", b"7" * 2**16),
        {502},
    ),
    "a gzip bomb": (
        sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(bytes(2**23))),
        {502},
    ),
    "a chunk size that has no end": (floods(CHUNKED, b"f" * 2**16), {502}),
    "trailers that have no end": (floods(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000), {502}),
    "interim answers that have no end": (floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), {502}),
    # What Python's parser of heads takes long to read, or trips over.
    "a head that takes long to read": (
        sends(HEAD[:-2] + b'Content-Type: multipart/a; "' + b"\r\n ".join([b";" * 65_000] * 4)),
        {502},
    ),
    "a boundary in parts": (
        sends(HEAD[:-2] + b"Content-Type: multipart/a; boundary*=a; boundary*0=b\r\n\r\n", BODY),
        {502},
    ),
    # Protocols that nobody asked for.
    "early hints": (sends(b"HTTP/1.1 103 Early Hints\r\n\r\n"), {502}),
    "another protocol to switch to": (sends(b"HTTP/1.1 101 Switching\r\n\r\n"), {502}),
}


@each(CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_its_row_in_the_policy(
    serve: Serve,
    call: Call,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    behaviour, statuses = FAULTS[fault]
    monkeypatch.setattr(exam_requests, "_RECORD_BYTES", 2**20)
    monkeypatch.setattr(exam_requests, "_SEQUENCE_BYTES", 2**20)
    server = serve(behaviour)
    started = time.monotonic()
    call.fails(caplog, *statuses)
    assert time.monotonic() - started < 10
    assert 1 <= len(server.requests) <= (2 if call.method in {"GET", "PUT"} else 1)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("closed without an answer", "no connection to the exam manager (RemoteDisconnected)"),
        ("reset without an answer", "no connection to the exam manager (Connection reset by peer)"),
        ("reset within the body", "the exam manager broke off its answer (Connection reset by"),
        ("cut short within the body", "the exam manager broke off its answer (IncompleteRead)"),
        ("another protocol", "the exam manager's answer is not valid HTTP (BadStatusLine)"),
    ],
)
def test_a_fault_is_called_what_it_is(
    serve: Serve, fault: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve(FAULTS[fault][0])
    detail = GET_TASK.fails(caplog, *FAULTS[fault][1])
    assert detail.startswith(f"Error getting task: {why}")


@each(CALLS)
def test_a_refused_connection_is_a_503(
    aim: Callable[[str], None], call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        aim(f"http://127.0.0.1:{unused.getsockname()[1]}")
        detail = call.fails(caplog, 503)
    assert detail == f"{call.what}: no connection to the exam manager (Connection refused)"


@each(CALLS)
@pytest.mark.parametrize("host", ["exam-manager.invalid", "a" * 64, "a..b", "256.256.256.256"])
def test_an_unknown_host_is_a_503(
    aim: Callable[[str], None], call: Call, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    aim(f"http://{host}:8000")
    assert "no connection to the exam manager" in call.fails(caplog, 503)


def test_a_name_service_that_is_silent_is_a_504(
    aim: Callable[[str], None],
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = threading.Event()

    def wait(*_: Any, **__: Any) -> Any:
        outage.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    aim("http://exam-manager.example:8000")
    started = time.monotonic()
    assert fail_at_once(caplog, 504) == UNCONNECTED
    assert time.monotonic() - started < 5
    outage.set()


def test_a_connection_that_is_made_too_late_is_closed(
    serve: Serve, short: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look_up = socket.getaddrinfo
    threads = []

    def late(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        time.sleep(0.4)
        return look_up(*arguments)

    server = serve(sends(answer(200, task())))
    monkeypatch.setattr(socket, "getaddrinfo", late)
    GET_TASK.fails(caplog, 504)
    for thread in threads:
        thread.join()  # It would leave a warning of a connection that nobody closed.
    assert threads
    assert not server.requests


def test_all_the_addresses_of_a_name_have_one_limit(
    full: tuple[str, int],
    aim: Callable[[str], None],
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", full)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [address] * 100)
    aim("http://exam-manager.example:8000")
    started = time.monotonic()
    assert fail_at_once(caplog, 504) == UNCONNECTED
    assert time.monotonic() - started < 5


def test_a_server_that_is_silent_within_the_handshake_is_a_504(
    serve: Serve, aim: Callable[[str], None], short: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(sends(then=quiet))
    aim(server.url.replace("http", "https"))
    assert fail_at_once(caplog, 504) == UNCONNECTED


@each(CALLS)
def test_a_system_without_a_thread_to_spare_is_a_503(
    serve: Serve, call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    serve(sends())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    call.fails(caplog, 503)


@each(CALLS)
@pytest.mark.parametrize(
    "url", ["exam-manager:8000", "ftp://exam-manager", "http://", "http://h:port", "http://[::1"]
)
def test_an_address_that_is_none_is_a_503(
    aim: Callable[[str], None], call: Call, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    aim(url)
    call.fails(caplog, 503)


@pytest.fixture
def full() -> Iterator[tuple[str, int]]:
    """Return the address of a host that takes no more connections."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_a_host_that_does_not_take_the_connection_is_a_504(
    full: tuple[str, int],
    aim: Callable[[str], None],
    short: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    aim(f"http://127.0.0.1:{full[1]}")
    assert fail_at_once(caplog, 504) == UNCONNECTED


@each(PUTS)
def test_a_server_that_does_not_take_the_body_is_a_504(
    aim: Callable[[str], None],
    call: Call,
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    payload = call.payload()
    payload.extra = "7" * 2**24
    monkeypatch.setattr(exam_requests, "_RECORD_BYTES", 2**25)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        aim(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        call.fails(caplog, 504, payload=payload)


def test_sending_may_take_longer_than_connecting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(connection: socket.socket, request: bytes) -> None:
        call = called(request)
        connection.sendall(answer(call.status, call.answer))
        time.sleep(0.5)

    server = serve(pause)
    monkeypatch.setattr(exam_requests, "_CONNECT_SECONDS", 0.1)
    GET_TASK()
    payload = task_payload()
    payload.extra = "7" * 2**24
    monkeypatch.setattr(exam_requests, "_RECORD_BYTES", 2**25)
    SET_TASK(payload=payload)
    assert server.connections == 1


def test_an_answer_that_takes_as_long_as_the_check_of_a_token_still_counts(serve: Serve) -> None:
    def slow(connection: socket.socket, request: bytes) -> None:
        time.sleep(5.2)
        call = called(request)
        connection.sendall(answer(call.status, call.answer))

    server = serve(slow)
    with ThreadPoolExecutor(len(CALLS)) as threads:
        assert len(list(threads.map(lambda call: call(), CALLS))) == len(server.requests)


@each(CALLS)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    serve: Serve, call: Call, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(sends(answer(200, task()))) as other:
        serve(sends(answer(status, None, f"Location: {other.url}/api/v1/exam/task/1")))
        detail = call.fails(caplog, 502)
        assert detail == f"{call.what}: the exam manager answered {status}"
        assert other.connections == 0


@pytest.mark.parametrize("location", ["http://[", "//", "\xff", "http://a b", "javascript:1", "?"])
def test_a_redirect_to_nowhere_is_a_502_as_well(
    serve: Serve, location: str, caplog: pytest.LogCaptureFixture
) -> None:
    serve(sends(answer(302, None, f"Location: {location}")))
    assert GET_TASK.fails(caplog, 502) == "Error getting task: the exam manager answered 302"


@each(CALLS)
def test_a_restart_between_two_calls_costs_nothing(aim: Callable[[str], None], call: Call) -> None:
    reply = sends(answer(call.status, call.answer), then=quiet)
    with Server(reply) as server:
        aim(server.url)
        call()
        port = int(server.url.rpartition(":")[2])
    with Server(reply, port=port) as server:
        call()
        assert len(server.requests) == 1


def test_an_answer_that_comes_compressed_is_read(serve: Serve) -> None:
    body = gzip.compress(BODY)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    serve(sends(head.encode(), body))
    assert GET_TASK().model_dump(mode="json") == GET_TASK.answer


@pytest.mark.parametrize("then", [close, quiet])
def test_an_answer_in_chunks_is_read(serve: Serve, then: Any) -> None:
    serve(sends(CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), then=then))
    assert GET_TASK().model_dump(mode="json") == GET_TASK.answer


def test_an_answer_may_have_very_many_chunks(serve: Serve) -> None:
    body = json.dumps({**GET_SEQUENCE.answer, "seq_file": "7" * 2**17}).encode()
    body += b" " * (-len(body) % 16)
    chunks = [b"10\r\n%s\r\n" % body[at : at + 16] for at in range(0, len(body), 16)]
    serve(sends(CHUNKED, *chunks, b"0\r\n\r\n"))
    assert GET_SEQUENCE().seq_file == "7" * 2**17


def test_an_answer_that_ends_with_its_connection_is_read(serve: Serve) -> None:
    serve(sends(b"HTTP/1.0 200 OK\r\n\r\n", BODY))
    assert GET_TASK().model_dump(mode="json") == GET_TASK.answer


def test_a_sequence_of_many_pieces_is_whole(serve: Serve) -> None:
    lines = "".join(f"{number} 0.25 -1\n" for number in range(200_000))
    serve(sends(answer(200, {**GET_SEQUENCE.answer, "seq_file": lines}), then=quiet))
    assert GET_SEQUENCE().seq_file == lines


@pytest.mark.parametrize("length", [f"{len(BODY)} ", f" {len(BODY)}", f"\r\n {len(BODY)}"])
def test_blanks_about_a_length_mean_nothing(serve: Serve, length: str) -> None:
    serve(sends(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode(), BODY, then=quiet))
    assert GET_TASK().model_dump(mode="json") == GET_TASK.answer


def test_a_cookie_that_the_cookie_jar_cannot_read_costs_nothing(serve: Serve) -> None:
    cookie = f"Set-Cookie: a=b; max-age={'9' * 4000}"
    serve(sends(answer(200, task(), cookie), then=quiet))
    assert GET_TASK().model_dump(mode="json") == GET_TASK.answer


@pytest.mark.parametrize("status", [200, 404])
def test_a_record_has_a_smaller_bound_than_a_sequence(
    serve: Serve, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    large = {**GET_SEQUENCE.answer, **task(), "detail": "7" * 2**23}
    serve(sends(answer(status, large)))
    assert GET_TASK.fails(caplog, 502) == "Error getting task: the answer is too large"
    if status == 200:
        assert GET_SEQUENCE().name
    else:
        GET_SEQUENCE.fails(caplog, 502)


def test_time_that_is_spent_on_a_payload_counts(
    serve: Serve, short: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(exam_requests.SetResult):
        @field_serializer("directory")
        def wait(self, value: str) -> str:
            time.sleep(0.5)
            return value

    server = serve(sends())
    payload = Slow.model_validate(result_payload().model_dump())
    detail = SET_RESULT.fails(caplog, 504, payload=payload)
    assert detail == "Error updating result: the call took longer than 0.5 s"
    assert not server.requests
