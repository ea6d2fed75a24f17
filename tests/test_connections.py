"""What the calls share, and what they do not: connections, threads, forks, users, settings."""

import base64
import errno
import json
import os
import random
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import trustme
import urllib3
import vcr

import calls
import exam_requests
from calls import CALLS, GET_TASK, REPEATABLE, SENT_ONCE, TOKEN, UNCONNECTED, each, task
from sockets import Server, answer, close, reply, reset


def echo(connection, request):
    """Answer with a task whose name is the token."""
    _, _, token = request.partition(b"Bearer ")
    connection.sendall(answer(200, task(name=token.split(b"\r\n")[0].decode())))


def run(script, *flags, url=""):
    """Run a script in an interpreter of its own; return what it printed, which must be no error."""
    code = "import sys\nsys.path[:0] = " + repr(sys.path) + "\n" + textwrap.dedent(script)
    command = [sys.executable, *flags, "-c", code]
    environment = os.environ | {"EXAM_MANAGER_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Kept-alive connections.


def test_gets_and_puts_share_a_connection_and_each_post_and_delete_has_its_own(server):
    for call in CALLS * 3:
        call()
    assert server.connections == 1 + 3 * len(SENT_ONCE)


@pytest.mark.parametrize("end", [close, reset])
@each(REPEATABLE)
def test_a_get_and_a_put_are_repeated_once_if_no_answer_began(serve, call, end):
    def second_time(connection, request):
        if len(server.requests) == 2:
            end(connection)
        else:
            reply(connection, request)

    server = serve(second_time)
    call()
    call()
    assert len(server.requests) == 3
    assert server.requests[1].split(b"\r\n\r\n")[1] == server.requests[2].split(b"\r\n\r\n")[1]


ABORT = ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")
DROPS = [ABORT, BrokenPipeError(errno.EPIPE, "Broken pipe"), ssl.SSLEOFError(8, "EOF occurred")]


@each(CALLS)
@pytest.mark.parametrize("drop", DROPS, ids=lambda drop: type(drop).__name__)
def test_a_connection_that_ends_otherwise_counts_as_dropped(mock, call, drop):
    raised = requests.ConnectionError(urllib3.exceptions.ProtocolError("Aborted.", drop))
    mock.add(call.method, call.url(), body=raised)
    if call in SENT_ONCE:
        assert call.fails(503) == calls.ENDED + drop.strerror
    else:
        mock.add(call.method, call.url(), json=call.answer)
        call()
        assert len(mock.calls) == 2


def test_no_call_fails_when_the_server_hangs_up_on_idle_connections(serve):
    server = serve(reply, idle_seconds=0.01)
    # Mostly those that use a kept connection, which is idle while the other two are made.
    mixed = [*REPEATABLE, *REPEATABLE, *SENT_ONCE] * 15

    def work(worker):
        moment = random.Random(worker)  # noqa: S311
        for number, call in enumerate(mixed):
            call(f"{worker}-{number}")
            time.sleep(0.01 + moment.uniform(-0.005, 0.005))

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(work, range(10)))
    arrived = Counter(request.split(b" HTTP/")[0] for request in server.requests)
    assert len(arrived) == 10 * len(mixed)
    assert {arrived[line] for line in arrived if line.startswith((b"POST", b"DELETE"))} == {1}


@pytest.mark.parametrize("status", [102, 103, 204, 304])
def test_bytes_after_an_answer_without_a_body_reach_no_other_user(serve, status):
    def late(connection, request):
        if b"Bearer max" in request:
            connection.sendall(f"HTTP/1.1 {status} Reason\r\n\r\n".encode())
            time.sleep(0.1)
        echo(connection, request)

    server = serve(late)
    GET_TASK.fails(502, token="max")  # noqa: S106
    assert GET_TASK(token="eva").name == "eva"  # noqa: S106
    assert server.connections == 2


# Threads and users.


def test_a_hundred_calls_at_once_get_their_own_answers(serve, monkeypatch, caplog):
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 20.0)
    all_there = threading.Barrier(100)

    def wait(connection, request):
        all_there.wait(20)
        echo(connection, request)

    def work(user):
        return all(GET_TASK(token=f"user-{user}").name == f"user-{user}" for _ in range(8))

    server = serve(wait)
    with ThreadPoolExecutor(100) as threads:
        assert all(threads.map(work, range(100)))
    assert server.connections == 100
    assert all(record.levelname == "DEBUG" for record in caplog.records)


def test_a_cookie_is_neither_kept_nor_sent(serve):
    cookie = answer(200, task(), "Set-Cookie: session=max; Path=/")
    server = serve(lambda connection, _: connection.sendall(cookie))
    for token in ("max", "eva", "max"):
        GET_TASK(token=token)
        calls.SET_TASK(token=token)
    assert not any(b"cookie" in request.lower() for request in server.requests)
    assert not any(session.cookies for session in exam_requests._sessions.values())


def test_proxy_variables_and_netrc_change_nothing(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login eva password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for call in CALLS:
        call()
    sent = [f"Bearer {TOKEN}".encode() in request for request in server.requests]
    assert sent == [True] * len(CALLS)


# Forks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_workers_forked_in_c_as_by_uwsgi_share_no_connection(serve):
    users = {}

    def note(connection, request):
        users.setdefault(connection.getpeername()[1], set()).add(request.split(b"Bearer ")[1][:3])
        echo(connection, request)

    script = """
        import ctypes, os, signal
        import exam_requests
        exam_requests.get_task("1", "before")
        workers = []
        for user in ("max", "eva", "kim", "zoe"):
            if not (worker := ctypes.PyDLL(None).fork()):
                signal.alarm(20)  # It ends a worker that hangs.
                names = {exam_requests.get_task("1", user).name for _ in range(100)}
                os._exit(names != {user})
            workers.append(worker)
        assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0, 0, 0]
        exam_requests.get_task("1", "before")
    """
    run(script, url=serve(note).url)
    assert sorted(map(list, users.values())) == [[b"bef"], [b"eva"], [b"kim"], [b"max"], [b"zoe"]]


# The process, and what others put into it.


def test_import_and_calls_even_at_exit_give_no_warning(server):
    script = """
        import atexit
        from calls import CALLS, GET_TASK
        for call in CALLS * 3:
            call()
        atexit.register(lambda: print(GET_TASK().progress))
    """
    # The oldest starlette imports python-multipart by a name that is deprecated.
    strict = ("-X", "dev", "-W", "error", "-W", "ignore::PendingDeprecationWarning")
    assert run(script, *strict, url=server.url) == "0\n"


def test_a_recorder_replays_what_it_recorded_and_sends_nothing(server, tmp_path):
    for _ in ("recorded", "replayed"):
        with vcr.use_cassette(str(tmp_path / "calls.yaml"), record_mode="once"):
            for call in CALLS:
                call.succeeds()
    assert len(server.requests) == len(CALLS)


@pytest.fixture
def hook(monkeypatch):
    """Let hooks see every answer, as tracers do that wrap the sessions of requests."""
    send, hooks = requests.Session.send, []

    def send_and_show(session, request, **how):
        response = send(session, request, **how)
        for hook in hooks:
            hook(response)
        return response

    monkeypatch.setattr(requests.Session, "send", send_and_show)
    return hooks.append


def test_a_hook_may_read_every_answer(server, hook):
    read = []
    hook(lambda response: read.append(response.text and response.json()))
    for call in CALLS:
        call.succeeds()
    assert read == [call.answer or "" for call in CALLS]


def test_a_hook_that_leaves_no_content_is_a_502_that_says_so(server, hook):
    hook(lambda response: list(response.iter_content(100)))
    assert GET_TASK.fails(502) == "a hook has already read the answer"


@each(CALLS)
def test_a_tests_own_answer_is_read(monkeypatch, call):
    own = requests.Response()
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda *_, **__: own)
    own.status_code = call.status
    own._content = json.dumps(call.answer).encode() if call.answer else b""
    call.succeeds()
    own.status_code, own._content = 418, b'{"detail": "no"}'
    assert call.fails(418) == "no"


# https.


AUTHORITY = trustme.CA()


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Trust an authority, by a file."""
    file = tmp_path / "ca.pem"
    file.write_bytes(AUTHORITY.cert_pem.bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f" {file}\r\n")
    return file


@pytest.fixture
def secure(aim, bundle):
    """Run a server that speaks https, with a certificate that is trusted."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    with Server(reply, wrap=lambda plain: context.wrap_socket(plain, server_side=True)) as server:
        aim(f"https://localhost:{server.url.rpartition(':')[2]}")
        yield server


def test_an_https_service_is_verified_with_requests_ca_bundle(secure):
    for call in CALLS * 2:
        call()
    assert len(secure.requests) == 2 * len(CALLS)
    assert secure.connections == 1 + 2 * len(SENT_ONCE)


def test_a_certificate_that_is_not_trusted_is_a_503_and_nothing_is_sent(secure, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    for why in calls.fail_at_once(503):
        assert why.startswith(f"{UNCONNECTED}[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify")
        assert why.endswith(" (REQUESTS_CA_BUNDLE is not set)")
    assert not secure.requests


def test_a_certificate_for_another_name_is_a_503_and_nothing_is_sent(secure, aim):
    aim(f"https://127.0.0.1:{secure.url.rpartition(':')[2]}")
    assert "certificate is not valid for '127.0.0.1'" in GET_TASK.fails(503)
    assert not secure.requests


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "Could not find a suitable TLS CA certificate bundle ("),
        (lambda file: file.write_text(""), "[X509"),
        (lambda file: file.write_bytes(ssl.PEM_cert_to_DER_cert(file.read_text())), ""),
        (lambda file: file.write_text(file.read_text()[:200]), "[X509"),
        (lambda file: file.write_text(trustme.CA().cert_pem.bytes().decode()), "[SSL: CERTIFICATE"),
    ],
    ids=["missing", "empty", "DER", "truncated", "of another authority"],
)
def test_a_bundle_that_cannot_work_is_named_and_a_corrected_one_works_without_a_restart(
    secure, aim, bundle, spoil, reason
):
    aim(f"HTTPS://localhost:{secure.url.rpartition(':')[2]}")
    right = bundle.read_bytes()
    spoil(bundle)
    why = GET_TASK.fails(503)
    assert why.startswith(UNCONNECTED + reason)
    assert why.endswith(f" (REQUESTS_CA_BUNDLE is {str(bundle)!a})")
    bundle.write_bytes(right)
    GET_TASK()


PEM = AUTHORITY.cert_pem.bytes().decode()
TEXTS = [PEM, "".join(PEM.splitlines()[1:-1]), base64.b64encode(PEM.encode()).decode()]


@pytest.mark.parametrize("text", TEXTS, ids=["PEM", "its lines", "PEM in base64"])
def test_a_certificate_in_the_variable_itself_is_not_shown(secure, monkeypatch, text):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", text)
    missing = "Could not find a suitable TLS CA certificate bundle"
    shown = " (REQUESTS_CA_BUNDLE is not an absolute path)"
    assert GET_TASK.fails(503) == UNCONNECTED + missing + shown


ALERT = "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"


@pytest.mark.parametrize(
    ("wrap", "cause", "blamed"),
    [
        (requests.exceptions.SSLError, PermissionError(errno.EACCES, "Permission denied"), True),
        (requests.ConnectionError, PermissionError(errno.EACCES, "Permission denied"), False),
        (requests.exceptions.SSLError, OSError(errno.EMFILE, "Too many open files"), False),
        (requests.ConnectionError, OSError(errno.EMFILE, "Too many open files"), False),
        (requests.exceptions.SSLError, ssl.SSLError(1, ALERT), False),
    ],
)
def test_the_bundle_is_named_only_where_it_is_the_reason(mock, bundle, wrap, cause, blamed):
    mock.get(GET_TASK.url(), body=wrap(urllib3.exceptions.SSLError(cause)))
    named = f" (REQUESTS_CA_BUNDLE is {str(bundle)!a})"
    assert GET_TASK.fails(503) == UNCONNECTED + cause.strerror + (named if blamed else "")
