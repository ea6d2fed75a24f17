"""What the check tells an operator: of real servers, and with a real certificate."""

import os
import re
import ssl
import sys
import time
from datetime import datetime
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest
import trustme

from sockets import Server, answer, close

ROOT = Path(__file__).parents[1]
CHECK = (ROOT / "examples/check.py").read_text()
HEADINGS = re.findall("^### (.*)$", (ROOT / "docs/operator.md").read_text("utf-8"), re.M)
WELL = "\nAll looks well from here.\n"
CA = trustme.CA()


def check(url, **settings):
    """Run the check; its last line says that all is well, or names a heading of the page."""
    options = dict(input=CHECK, capture_output=True, text=True, timeout=60)
    environment = os.environ | {"EXAM_MANAGER_URL": url} | settings
    done = run([sys.executable, "-ISWerror", "-"], env=environment, **options)
    cause = re.search(r'\nLikeliest cause: .* See "(\w+)" in docs/operator.md\.\n', done.stdout)
    assert cause[1] in HEADINGS if cause else done.stdout.endswith(WELL)
    assert (done.returncode, done.stderr) == (1 if cause else 0, "")
    return done.stdout


def exam_manager(connection, request, seconds=0):
    time.sleep(seconds if b"PUT" in request else 0)
    why = "Invalid token." if b"Bearer x" in request else "Not authenticated"
    connection.sendall(answer(401, {"detail": why}))


def test_all_is_well_and_what_is_sent_concerns_no_record_and_no_user():
    with Server(exam_manager) as server:
        assert check(server.url + "/prefix").endswith(WELL)
    assert len(server.requests) == 4
    for request in server.requests:
        assert re.match(rb"(GET|PUT) /prefix/api/v1/exam/task/[0-]+/? ", request)
        assert b"Authorization" not in request or b"Bearer xxxxxxxx" in request


REPLIES = {
    "what answers fails, or is a proxy": lambda connection, _: connection.sendall(answer(502)),
    "a proxy drops the header": lambda connection, _: exam_manager(connection, b""),
    "another service's or nobody's": lambda connection, _: close(connection),
    "a firewall before it, cuts off this request": lambda connection, request: (
        close(connection) if b"Bearer" in request else exam_manager(connection, request)
    ),
    "the line is slow": lambda *request: exam_manager(*request, seconds=1.1),
}


@pytest.mark.parametrize("cause", REPLIES)
def test_another_answer_has_its_cause(cause):
    with Server(REPLIES[cause]) as server:
        assert cause in check(server.url)


def test_an_answer_that_takes_longer_than_the_limit_is_told():
    with Server(lambda *request: (time.sleep(0.2), exam_manager(*request))) as server:
        assert "too low a limit" in check(server.url, EXAM_MANAGER_TIMEOUT="0.1")


def test_what_prevents_a_connection_is_told():
    assert "refused" in check("http://127.0.0.1:1")
    assert "the name is not known" in check("http://nowhere.invalid")
    assert "with these settings" in check("http://h", EXAM_MANAGER_TIMEOUT="3s")
    assert r"\ufeffEXAM_MANAGER_URL' is not read" in check("", **{"\ufeffEXAM_MANAGER_URL": "h"})


CERTIFICATES = {
    WELL: ("127.0.0.1", 2099, True),
    "its authority is not trusted": ("127.0.0.1", 2099, False),
    "a certificate was not renewed, or a clock is wrong": ("127.0.0.1", 2020, True),
    "the certificate is not for the name in EXAM_MANAGER_URL": ("h.example", 2099, True),
}


@pytest.mark.parametrize("verdict", CERTIFICATES)
def test_a_certificate_is_shown_and_judged(tmp_path, verdict):
    name, year, trusted = CERTIFICATES[verdict]
    CA.cert_pem.write_to_path(tmp_path / "bundle")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name, not_after=datetime(year, 1, 1)).configure_cert(tls)
    with Server(exam_manager, lambda plain: tls.wrap_socket(plain, server_side=True)) as server:
        url, bundle = server.url.replace("http", "https"), tmp_path / "bundle" if trusted else ""
        told = check(url, REQUESTS_CA_BUNDLE=str(bundle))
        slow = check(url, REQUESTS_CA_BUNDLE=str(bundle), EXAM_MANAGER_TIMEOUT="1e-9")
    assert [verdict in told, verdict in slow] == [True, verdict != WELL]
    assert re.search(f"   Certificate shown: .*trustme.* notAfter .*{name}", told)


def test_no_secret_is_printed():
    key = CA.private_key_pem.bytes().decode()
    told = check("https://ada:secret@127.0.0.1:1", REQUESTS_CA_BUNDLE=key)
    assert not any(secret in told for secret in ["secret", *key.splitlines()])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows open files")
def test_a_process_that_has_used_its_open_files_is_all_that_is_wrong_here(running_exam_manager):
    # Each check sees this process: `make test` runs the tests of a file one after the other.
    leak = "from resource import *; setrlimit(RLIMIT_NOFILE, (3, 3)); print(flush=True); input()"
    with Popen([sys.executable, "-c", leak], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.readline()
        wrong = re.findall("^!! (.*)", check(running_exam_manager.url), re.M)
        assert wrong == [f"Files: process {process.pid} has opened 3 of 3"]
        process.communicate(b"\n")
