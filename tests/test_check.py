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
CA = trustme.CA()
NO_TOKEN = answer(401, {"detail": "Not authenticated"})
WRONG_TOKEN = answer(401, {"detail": "Invalid token."})


def check(url, status, **environment):
    environment = os.environ | {"EXAM_MANAGER_URL": url} | environment
    with open(ROOT / "examples/check.py") as script:
        options = dict(stdin=script, env=environment, capture_output=True, text=True, timeout=60)
        done = run([sys.executable, "-ISWerror", "-"], **options)
    assert (done.returncode, done.stderr) == (status, "")
    if status:  # The page has the heading that the last line names.
        heading = re.search(r'\nLikeliest cause: .* See "(\w+)" in .*\n\Z', done.stdout)[1]
        assert f"\n### {heading}\n" in (ROOT / "docs/operator.md").read_text("utf-8")
    return done.stdout


def exam_manager(connection, request):
    connection.sendall(WRONG_TOKEN if b"Bearer x" in request else NO_TOKEN)


def slow(connection, request):
    time.sleep(1.1 * (b"Authorization" in request))
    exam_manager(connection, request)


REPLIES = {
    "what answers fails, or is a proxy": lambda connection, _: connection.sendall(answer(502)),
    "a proxy drops the header": lambda connection, _: connection.sendall(NO_TOKEN),
    "speaks https, or is another service": lambda connection, _: close(connection),
    "the login service or the line is stuck or slow": slow,
}
CERTIFICATES = {
    "trusted": "All looks well from here.",
    "": "its authority is not among the trusted",
    "of another name": "the certificate is not for the name in EXAM_MANAGER_URL",
    "old": "a certificate was not renewed, or a clock is wrong",
}


def test_all_is_well(running_exam_manager):
    assert check(running_exam_manager.url, 0).endswith("\nAll looks well from here.\n")


def test_what_is_sent_concerns_no_record_and_no_user():
    with Server(exam_manager) as server:
        check(server.url + "/prefix", 0)
    assert len(server.requests) == 4
    for request in server.requests:
        assert re.match(rb"(GET|PUT) /prefix/api/v1/exam/task/[0-]+/? ", request)
        assert b"Authorization" not in request or b"Bearer xxxxxxxx" in request


@pytest.mark.parametrize("cause", REPLIES)
def test_another_answer_has_its_cause(cause):
    with Server(REPLIES[cause]) as server:
        assert cause in check(server.url, 1)


def test_what_prevents_a_connection_is_told():
    assert "refused" in check("http://127.0.0.1:1", 1)
    assert "the name is not known here" in check("http://nowhere.invalid", 1)
    assert "with these settings" in check("http://h", 1, EXAM_MANAGER_TIMEOUT="3s")
    assert r"\ufeffEXAM_MANAGER_URL' is not read" in check("", 1, **{"\ufeffEXAM_MANAGER_URL": "h"})


@pytest.mark.parametrize("bundle", CERTIFICATES)
def test_a_certificate_is_shown_and_judged(tmp_path, bundle):
    CA.cert_pem.write_to_path(tmp_path / (bundle or "unused"))
    end = datetime(2020 if bundle == "old" else 2099, 1, 1)
    name = "h.example" if "name" in bundle else "127.0.0.1"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(name, not_before=datetime(2019, 1, 1), not_after=end).configure_cert(tls)
    with Server(exam_manager, lambda plain: tls.wrap_socket(plain, server_side=True)) as server:
        settings = {"REQUESTS_CA_BUNDLE": bundle and str(tmp_path / bundle)}
        told = check(f"https{server.url[4:]}", int(bundle != "trusted"), **settings)
    assert CERTIFICATES[bundle] in told.splitlines()[-1]
    assert re.search(f"   Certificate shown: .*trustme.* notAfter .*{name}", told)


def test_no_secret_is_printed():
    key = CA.private_key_pem.bytes().decode()
    told = check("https://ada:secret@127.0.0.1:1", 1, REQUESTS_CA_BUNDLE=key)
    assert not any(secret in told for secret in ["secret", *key.splitlines()])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows open files")
def test_a_process_that_has_used_its_open_files_is_named(running_exam_manager):
    leak = "from resource import *; setrlimit(RLIMIT_NOFILE, (3, 3)); print(flush=True); input()"
    with Popen([sys.executable, "-c", leak], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.readline()
        assert f"process {process.pid} has opened 3 of 3" in check(running_exam_manager.url, 1)
        process.communicate(b"\n")
