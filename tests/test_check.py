"""What the check tells an operator: against real servers, and with a real certificate."""

import copy
import datetime
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from sockets import Server, answer, close

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operator.md").read_text(encoding="utf-8")
WELL = "All looks well from here."


def check(url, status, **environment):
    """Pipe the check into a Python without packages; return what it printed."""
    environment = {**os.environ, "EXAM_MANAGER_URL": url, **environment}
    with open(ROOT / "examples/check.py", encoding="utf-8") as script:
        options = dict(env=environment, stdin=script, capture_output=True, text=True, timeout=60)
        done = subprocess.run([sys.executable, "-I", "-S", "-"], **options)
    assert (done.returncode, done.stderr) == (status, "")
    if status:
        heading = re.search(r'See "(\w+)" in docs/operator.md.\n\Z', done.stdout)[1]
        assert f"\n### {heading}\n" in PAGE
    return done.stdout


def exam_manager(connection, request):
    """Answer as an exam manager does to a request without a token, and to one with a wrong one."""
    wrong = b"Authorization: Bearer x" in request
    connection.sendall(answer(401, {"detail": "Invalid token." if wrong else "Not authenticated"}))


def test_all_is_well_and_nothing_is_changed(running_exam_manager):
    before = copy.deepcopy(vars(running_exam_manager))
    assert check(running_exam_manager.url, 0).splitlines()[-1] == WELL
    for name in ("tasks", "results", "sequences", "exams"):
        assert vars(running_exam_manager)[name] == before[name]


def test_what_is_sent_concerns_no_record_and_no_user():
    with Server(exam_manager) as server:
        check(server.url + "/prefix", 0)
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET"] * 3 + [b"PUT"]
    for request in server.requests:
        assert re.match(rb"\w+ /prefix/api/v1/exam/task/[0-]+/? ", request)
        assert b"Authorization" not in request or b"Bearer xxxxxxxx" in request


WEB = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
ANSWERS = {
    "a proxy answers, and not the exam manager behind it": answer(502),
    "something else answers, such as a sign-in page": WEB,
    "a proxy drops the header": answer(401, {"detail": "Not authenticated"}),
    "the port speaks https": b"",
}


@pytest.mark.parametrize("cause", ANSWERS)
def test_an_answer_that_is_not_the_exam_managers_has_its_cause(cause):
    def reply(connection, _):
        connection.sendall(ANSWERS[cause])
        close(connection)

    with Server(reply) as server:
        assert f"Likeliest cause: {cause}" in check(server.url, 1)


def test_a_slow_login_service_is_told_by_the_seconds():
    def slow(connection, request):
        time.sleep(1.2 if b"Authorization" in request else 0)
        exam_manager(connection, request)

    with Server(slow) as server:
        told = check(server.url, 1)
    assert "   Answer without a token: 401" in told
    assert "!! Answer with a wrong token: 401" in told
    assert "is stuck or slow" in told


def test_what_gives_no_connection_has_its_cause():
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # It does not listen.
        assert "refused" in check(f"http://127.0.0.1:{bound.getsockname()[1]}", 1)
    assert 'See "Name"' in check("http://nowhere.invalid", 1)
    told = check("", 1, **{"\ufeffEXAM_MANAGER_URL": "http://h"})
    assert "'\\ufeffEXAM_MANAGER_URL' is not read, but EXAM_MANAGER_URL" in told


CA = trustme.CA()


def https(name, **dates):
    """Return a server with a certificate for a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name, **dates).configure_cert(context)
    return Server(exam_manager, lambda plain: context.wrap_socket(plain, server_side=True))


@pytest.mark.parametrize(
    ("name", "bundle", "cause"),
    [
        ("127.0.0.1", "file", WELL),
        ("exam-manager.example", "file", "not for the name"),
        ("127.0.0.1", "", "the authority that signed the certificate is not among the trusted"),
        ("127.0.0.1", "folder", "REQUESTS_CA_BUNDLE does not name certificates"),
        ("127.0.0.1", "missing", "REQUESTS_CA_BUNDLE does not name certificates"),
    ],
)
def test_a_certificate_is_shown_and_judged(tmp_path, name, bundle, cause):
    (tmp_path / "folder").mkdir()
    CA.cert_pem.write_to_path(tmp_path / "file")
    with https(name) as server:
        url = server.url.replace("http", "https")
        path = str(tmp_path / bundle) if bundle else ""
        told = check(url, int(cause != WELL), REQUESTS_CA_BUNDLE=path)
    assert cause in told.splitlines()[-1]
    if bundle in {"file", ""}:
        assert re.search(f"Certificate shown: .*trustme.*subjectAltName.*{name}", told)


def test_a_certificate_that_has_expired_is_shown_all_the_same(tmp_path):
    CA.cert_pem.write_to_path(tmp_path / "file")
    past = datetime.datetime.now() - datetime.timedelta(days=1)
    with https("127.0.0.1", not_before=past.replace(year=2020), not_after=past) as server:
        url = server.url.replace("http", "https")
        told = check(url, 1, REQUESTS_CA_BUNDLE=str(tmp_path / "file"))
    assert re.search("   Certificate shown: .*notAfter", told)
    assert "a certificate was not renewed, or a clock is wrong" in told


def test_no_secret_is_printed():
    key = CA.private_key_pem.bytes().decode()
    told = check("https://ada:secret@nowhere.invalid", 1, REQUESTS_CA_BUNDLE=key)
    assert "secret" not in told
    assert not any(line in told for line in key.splitlines())


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="Linux shows open files")
def test_a_process_that_has_used_its_open_files_is_named(running_exam_manager):
    leak = """if True:
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        files = [open("/dev/null") for _ in range(15)]
        print("full", flush=True)
        input()
    """
    command = [sys.executable, "-c", leak]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"full\n"
        told = check(running_exam_manager.url, 1)
        process.communicate(b"\n")
    assert f"process {process.pid} has opened 18 of 20" in told
