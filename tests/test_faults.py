"""What a caller gets for each fault of a network or a service, on real sockets."""

import gzip
import json
import os
import socket
import time
from contextlib import ExitStack, suppress

import certifi
import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

import calls
import exam_requests
from calls import ANSWERED, CALLS, ENDED, GET_TASK, UNCONNECTED, each, fail_at_once, task
from sockets import Server, answer, close, reset


def head(status, body):
    """Return the head of an answer with this body."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()


BODY = json.dumps(task()).encode()
HEAD = head("200 OK", BODY)
CLOSED = b"HTTP/1.0 200 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def sends(*pieces, then=close):
    """Answer with these bytes, and then close, reset or (`quiet`) wait."""

    def send(connection, request):
        # The documented status, so that it is the body that is read.
        status = b" %d " % calls.called(request).status
        for piece in pieces:
            connection.sendall(piece.replace(b" 200 ", status.replace(b" 204 ", b" 404 "), 1))
        then(connection)

    return send


def quiet(connection):
    """Send nothing more, and keep the connection open."""


# Time limits.

TOO_LATE = "no connection to the exam manager in 0.2 s"
SILENCES = {
    "after accepting": [],
    "within the status line": [b"HTTP/1.1 20"],
    "within the headers": [HEAD[:-2]],
    "before the body": [HEAD],
    "within the body": [HEAD, BODY[:99]],
    "between chunks": [CHUNKED, b"1\r\n{\r\n"],
}


@pytest.mark.parametrize("silence", SILENCES)
def test_a_silence_is_a_504_that_names_the_limit_and_is_not_repeated(serve, silence, short_limit):
    server = serve(sends(*SILENCES[silence], then=quiet))
    assert fail_at_once(504) == {"the exam manager sent nothing for 0.2 s"}
    assert len(server.requests) == len(CALLS)


LONG = BODY + b" " * 3000


def test_an_answer_has_a_limit_as_a_whole_that_grows_with_what_has_come(serve, monkeypatch):
    def send(connection, request):
        connection.sendall(head("200 OK", LONG))
        for at in range(0, len(LONG), 300):
            connection.sendall(LONG[at : at + 300])
            time.sleep(0.06)

    serve(send)
    monkeypatch.setattr(exam_requests, "_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(exam_requests, "_BYTES_PER_SECOND", 2**40)
    assert GET_TASK.fails(504) == "the answer took longer than 0.3 s"
    monkeypatch.setattr(exam_requests, "_BYTES_PER_SECOND", 50)
    GET_TASK.succeeds()
    monkeypatch.setattr(exam_requests, "_LONGEST_SECONDS", 0.4)
    assert GET_TASK.fails(504) == "the answer took longer than 0.4 s"


def test_a_host_that_does_not_accept_the_connection_is_a_504(aim, short_limit):
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        aim(f"http://127.0.0.1:{full.getsockname()[1]}")
        assert fail_at_once(504) == {TOO_LATE}


def test_a_server_that_is_silent_during_the_handshake_is_a_504(serve, aim, short_limit):
    server = serve(lambda connection, _: time.sleep(1))
    aim(server.url.replace("http", "https"))
    assert fail_at_once(504) == {TOO_LATE}


@each(calls.PUTS)
def test_a_server_that_does_not_read_the_body_is_a_504(aim, call, short_limit):
    payload = type(call.payload()).model_validate(call.answer | {"later": "7" * 2**24})
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        aim(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert call.fails(504, payload=payload) == "the request could not be sent in 0.2 s"


# No connection, or one that is broken off.

BROKEN_OFF = "the exam manager broke off its answer: "
NOT_HTTP = "the answer cannot be read as HTTP"
GZIP = HEAD.replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)
FAULTS = {
    "closed without an answer": (sends(), 503, f"{ENDED}Remote end closed connection"),
    "reset without an answer": (sends(then=reset), 503, f"{ENDED}Connection reset by peer"),
    "cut short within the headers": (sends(HEAD[:-2]), 503, f"{BROKEN_OFF}IncompleteRead(0 bytes"),
    "cut short before the body": (sends(HEAD), 503, f"{BROKEN_OFF}IncompleteRead(0 bytes read,"),
    "cut short in the body": (sends(HEAD, BODY[:9]), 503, f"{BROKEN_OFF}IncompleteRead(9 bytes"),
    "cut short between chunks": (sends(CHUNKED, b"1\r\n{\r\n"), 503, f"{BROKEN_OFF}IncompleteRea"),
    "reset in the body": (sends(HEAD, BODY[:99], then=reset), 503, f"{BROKEN_OFF}Connection r"),
    "another protocol": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), 502, NOT_HTTP),
    "badly compressed": (sends(GZIP, BODY), 502, NOT_HTTP),
    "too large": (sends(CLOSED, b" " * (2**20 + 1)), 502, "the answer has more than 1 MiB"),
}


@each(CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_status_and_detail(serve, call, fault, monkeypatch):
    if os.name == "nt" and "reset" in fault:
        pytest.skip("the words of a reset are those of Linux")
    behaviour, status, why = FAULTS[fault]
    monkeypatch.setattr(exam_requests, "_ANSWER_BYTES", 2**20)
    server = serve(behaviour)
    assert call.fails(status).startswith(why)
    repeated = "without an answer" in fault and call.method in {"GET", "PUT"}
    assert len(server.requests) == (2 if repeated else 1)


FIELDS = """\
Content-Length: 2
Content-Length: 3
Transfer-Encoding: chunked
Content-Encoding: gzip
Content-Type: a; charset
Content-Type: multipart/mixed; boundary*=undefined''%e9
Content-Type: multipart/mixed; boundary*=us-ascii\0''%e9
Location: http://[
Set-Cookie: a=b
Connection: close""".splitlines()
BODIES = [b"", b"{}", BODY, b"2\r\n{}\r\n0\r\n\r\n", gzip.compress(BODY)]


@pytest.fixture
def sent(serve):
    """Run a server that sends these bytes."""
    pieces = []
    serve(lambda connection, request: sends(*pieces)(connection, request))
    return pieces


@each([GET_TASK, calls.DELETE_BLANK_RESULT])
@calls.reproducible
@given(
    status=st.sampled_from(["200 OK", "201 C", "204 N", "302 F", "404 N", "", "x"]) | st.text(),
    fields=st.lists(st.sampled_from(FIELDS) | st.text(), max_size=5),
    body=st.sampled_from(BODIES) | st.binary(),
)
def test_whatever_a_server_sends_nothing_but_an_http_exception_is_raised(
    sent, call, status, fields, body
):
    lines = [f"HTTP/1.1 {status}", *fields, "", ""]
    sent[:] = ["\r\n".join(lines).encode("latin-1", "replace") + body]
    with suppress(HTTPException):
        call()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connection_is_a_503_that_names_no_bundle(aim, monkeypatch, scheme):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        aim(f"{scheme}://127.0.0.1:{unused.getsockname()[1]}")
        assert fail_at_once(503) == {f"{UNCONNECTED}Connection refused"}


def test_an_unknown_host_is_a_503(aim):
    aim("http://exam-manager.invalid:8000")
    words = {"Name or service not known", "getaddrinfo failed"}  # The second on Windows, ...
    words |= {"Temporary failure in name resolution"}  # ... this one without a network.
    assert GET_TASK.fails(503).removeprefix(UNCONNECTED) in words


@each(CALLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_says_at_once_where_it_leads(serve, call, status):
    with Server(sends(answer(200, task()))) as other:
        fields = f"Location: {other.url}/login?state={calls.TOKEN}\r\nContent-Length: 9\r\n\r\n"
        serve(sends(f"HTTP/1.1 {status} Found\r\n{fields}".encode(), then=quiet))
        assert call.fails(502) == f"{ANSWERED} {status}, a redirect to {other.url}"
        assert other.connections == 0


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/login", ", a redirect to http://exam-manager:8000"),
        ("https://eva:secret@login.example:8443/", ", a redirect to https://login.example:8443"),
        ("http://[::1", ""),
    ],
)
def test_a_redirect_to_any_location_shows_no_user_name(mock, location, leads):
    mock.get(GET_TASK.url(), status=302, headers={"Location": location})
    assert GET_TASK.fails(502) == f"{ANSWERED} 302{leads}"


def test_an_answer_that_a_proxy_has_compressed_is_read(serve):
    packed = gzip.compress(BODY)
    serve(sends(head("200 OK\r\nContent-Encoding: gzip", packed), packed, then=quiet))
    for _ in range(2):
        GET_TASK.succeeds()


def test_the_documented_limits_are_those_of_the_module():
    e, documented = exam_requests, " ".join(exam_requests.__doc__.split())
    rate = f"{e._BYTES_PER_SECOND / 2**10:g} KiB of it, {e._LONGEST_SECONDS:g} s at most"
    whole = f"for the whole answer {e._ANSWER_SECONDS:g} s, and 1 s more for each {rate}"
    assert f"{e._STEP_SECONDS:g} s to connect to each address, to send the request" in documented
    assert whole in documented
    assert f"more than {e._ANSWER_BYTES / 2**20:g} MiB" in documented
    assert e._ID_CHARACTERS == 128
