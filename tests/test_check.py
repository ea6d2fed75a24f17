"""What the check tells an operator: of real servers, and with a real certificate."""

import copy
import datetime
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from sockets import Server, answer, close

ROOT = Path(__file__).parents[1]
WELL = "All looks well from here."
CA = trustme.CA()


def check(url, status, **environment):
    """Pipe the check into a Python without packages; return what it printed."""
    options = dict(env=os.environ | {"EXAM_MANAGER_URL": url} | environment, timeout=60)
    with open(ROOT / "examples/check.py") as script:
        command = [sys.executable, "-I", "-S", "-W", "error", "-"]
        done = subprocess.run(command, stdin=script, capture_output=True, text=True, **options)
    assert (done.returncode, done.stderr) == (status, "")
    if status:  # The page has the heading that the last line names.
        heading = re.search(r'\nLikeliest cause: .* See "(\w+)" in .*\n\Z', done.stdout)[1]
        assert f"\n### {heading}\n" in (ROOT / "docs/operator.md").read_text("utf-8")
    return done.stdout


def exam_manager(connection, request):
    """Answer as an exam manager does to a request without a token, and to one with a wrong one."""
    wrong = b"Authorization: Bearer x" in request
    connection.sendall(answer(401, {"detail": "Invalid token." if wrong else "Not authenticated"}))


def slow(connection, request):
    time.sleep(1.1 if b"Authorization" in request else 0)
    exam_manager(connection, request)


def test_all_is_well_and_nothing_is_changed(running_exam_manager):
    before = copy.deepcopy(running_exam_manager.__dict__)
    assert check(running_exam_manager.url, 0).endswith(f"{WELL}\n")
    for name in ("tasks", "results", "sequences", "exams"):
        assert vars(running_exam_manager)[name] == before[name]


def test_what_is_sent_concerns_no_record_and_no_user():
    with Server(exam_manager) as server:
        check(server.url + "/prefix", 0)
    assert [request.split(b" ")[0] for request in server.requests] == [b"GET"] * 3 + [b"PUT"]
    for request in server.requests:
        assert re.match(rb"\w+ /prefix/api/v1/exam/task/[0-]+/? ", request)
        assert b"Authorization" not in request or b"Bearer xxxxxxxx" in request


UNSIGNED = {"detail": "Not authenticated"}


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (lambda connection, _: connection.sendall(answer(502)), "answers: see the status"),
        (lambda connection, _: connection.sendall(answer(200)), "answers: see the status"),
        (lambda connection, _: connection.sendall(answer(401, UNSIGNED)), "a proxy drops the head"),
        (lambda connection, _: close(connection), "the port speaks https, or nothing is behind"),
        (slow, "the login service or the line is stuck or slow"),
    ],
)
def test_another_answer_has_its_cause(reply, cause):
    with Server(reply) as server:
        assert cause in check(server.url, 1)


@pytest.mark.parametrize(
    ("url", "environment", "cause"),
    [
        ("http://127.0.0.1:1", {}, "refused"),
        ("http://nowhere.invalid", {}, "the name is not known here"),
        ("", {"\ufeffEXAM_MANAGER_URL": "http://h"}, r"'\ufeffEXAM_MANAGER_URL' is not read"),
        ("http://h", {"EXAM_MANAGER_TIMEOUT": "3s"}, "Likeliest cause: Settings"),
    ],
)
def test_what_prevents_a_connection_is_told(url, environment, cause):
    assert cause in check(url, 1, **environment)


@pytest.mark.parametrize(
    ("name", "bundle", "cause"),
    [
        ("127.0.0.1", "file", WELL),
        ("h.example", "file", "not for the name"),
        ("127.0.0.1", "", "the authority that signed the certificate is not among the trusted"),
        ("127.0.0.1", "folder", "REQUESTS_CA_BUNDLE does not name certificates"),
        ("127.0.0.1", "old", "a certificate was not renewed, or a clock is wrong"),
    ],
)
def test_a_certificate_is_shown_and_judged(tmp_path, name, bundle, cause):
    (tmp_path / "folder").mkdir()
    for file in ("file", "old"):
        CA.cert_pem.write_to_path(tmp_path / file)
    dates = {"not_after": datetime.datetime(2020, 1, 1)} if bundle == "old" else {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name, not_before=datetime.datetime(2019, 1, 1), **dates).configure_cert(context)
    with Server(exam_manager, lambda plain: context.wrap_socket(plain, server_side=True)) as server:
        path = str(tmp_path / bundle) if bundle else ""
        url = server.url.replace("http", "https")
        told = check(url, int(cause != WELL), REQUESTS_CA_BUNDLE=path)
    assert cause in told.splitlines()[-1]
    if bundle != "folder":
        assert re.search(f"   Certificate shown: .*trustme.* notAfter .*{name}", told)


def test_no_secret_is_printed():
    key = CA.private_key_pem.bytes().decode()
    told = check("https://ada:secret@nowhere.invalid", 1, REQUESTS_CA_BUNDLE=key)
    assert not any(secret in told for secret in ["secret", *key.splitlines()])


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="only Linux shows open files")
def test_a_process_that_has_used_its_open_files_is_named(running_exam_manager):
    leak = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (20, 20)); print('set', flush=True);"
    leak += "files = [open('/dev/null') for _ in range(15)]; input()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", leak], **pipes) as process:
        process.stdout.readline()
        time.sleep(0.5)
        assert f"process {process.pid} has opened 18 of 20" in check(running_exam_manager.url, 1)
        process.communicate(b"\n")
