"""What the operator sets: a setting that cannot work stops the import, and says why."""

import runpy

import pytest
import requests

import exam_requests
from calls import GET_TASK

DOCUMENTED = "http://exam-manager:8000"


@pytest.mark.parametrize(
    ("address", "base"),
    [
        (None, DOCUMENTED),
        ("", DOCUMENTED),
        (" \r\n", DOCUMENTED),
        ("https://exams.clinic.example:8443", "https://exams.clinic.example:8443"),
        ("https://exams.clinic.example/scanhub//", "https://exams.clinic.example/scanhub"),
        ("http://h/api/v1/exam-manager", "http://h/api/v1/exam-manager"),
        ("http://h/a%20b", "http://h/a%20b"),
        ("http://exams.clinic.example.", "http://exams.clinic.example."),
        ("http://exam_manager\r\n", "http://exam_manager"),
        ("HTTP://10.0.0.7:80", "HTTP://10.0.0.7:80"),
        ("http://[fd00::7]:8000", "http://[fd00::7]:8000"),
        ("http://prüfung.example", "http://prüfung.example"),
    ],
)
def test_the_address_is_taken_from_the_environment(address, base, monkeypatch):
    if address is not None:
        monkeypatch.setenv("EXAM_MANAGER_URL", address)
    module = runpy.run_path(exam_requests.__file__, run_name="exam_requests")
    for name in ("task", "result", "sequence"):
        assert module[f"{name.upper()}_URI"] == f"{base}/api/v1/exam/{name}"


WRONG = {
    "it does not begin with http:// or https://": [
        *("exam-manager:8000", "//exam-manager:8000", "htpp://exam-manager:8000"),
        *("http//exam-manager:8000", "http:/exam-manager:8000", "None", "${EXAM_MANAGER}"),
    ],
    "there are quotation marks around it": [
        *('"http://exam-manager:8000"', "'http://exam-manager:8000'"),
    ],
    "it has no valid host name": [
        *("http://", "http://:8000", "http://${HOST}:8000", "http://ex..ample", "http://a..b"),
        *("http://exam manager:8000", "http://exam-manager;8000"),
    ],
    "Invalid IPv6 URL": ["http://[::1"],
    "Port could not be cast to integer value as 'port'": ["http://exam-manager:port"],
    "Port could not be cast to integer value as '$PORT'": ["http://exam-manager:$PORT"],
    "Port could not be cast to integer value as '80:80'": ["http://exam-manager:80:80"],
    "Port could not be cast to integer value as '80\"'": ['http://exam-manager:80"'],
    "Port out of range 0-65535": ["http://exam-manager:80000"],
    "its port is empty or 0": ["http://exam-manager:0", "http://h:", "http://http://exam-manager"],
    "it holds a ? or a #": [
        f"http://h{more}" for more in ("?", "#", ":8000?a=b", "#a", "/path?", "/path#")
    ],
    "it holds /api/v1/exam, which is added to it": [
        f"http://exam-manager/api/v1/exam{more}" for more in ("", "/", "/task")
    ],
    "its path is not valid": ["http://exam-manager/${PREFIX}", "http://exam-manager/a b"],
}


@pytest.mark.parametrize(
    ("address", "wrong"), [(url, wrong) for wrong, urls in WRONG.items() for url in urls]
)
def test_an_address_that_cannot_work_stops_the_import_and_says_why(address, wrong, monkeypatch):
    monkeypatch.setenv("EXAM_MANAGER_URL", address)
    with pytest.raises(ValueError, match="EXAM_MANAGER_URL") as raised:
        runpy.run_path(exam_requests.__file__, run_name="exam_requests")
    assert str(raised.value) == f"EXAM_MANAGER_URL is {address!r}: {wrong}"


@pytest.mark.parametrize(
    ("scheme", "wrong"), [("http://", "it holds a user"), ("", "it does not begin with http")]
)
def test_the_password_of_an_address_is_not_shown(scheme, wrong, monkeypatch):
    monkeypatch.setenv("EXAM_MANAGER_URL", f"{scheme}eva:secret@exam-manager:8000")
    shown = r"^EXAM_MANAGER_URL is '\.\.\.@exam-manager:8000': "
    with pytest.raises(ValueError, match=shown + wrong):
        runpy.run_path(exam_requests.__file__, run_name="exam_requests")


@pytest.mark.parametrize(
    ("setting", "seconds"), [(None, 3), ("", 3), ("30", 30), (" 0.5\r\n", 0.5), ("1e1", 10)]
)
def test_the_limit_of_a_step_is_taken_from_the_environment(setting, seconds, monkeypatch):
    if setting is not None:
        monkeypatch.setenv("EXAM_MANAGER_TIMEOUT", setting)
    module = runpy.run_path(exam_requests.__file__, run_name="exam_requests")
    assert module["_STEP_SECONDS"] == seconds


@pytest.mark.parametrize("setting", ["0", "-1", "nan", "inf", "3 s", "3,5", '"3"', "None"])
def test_a_limit_that_is_none_stops_the_import_and_says_so(setting, monkeypatch):
    monkeypatch.setenv("EXAM_MANAGER_TIMEOUT", setting)
    with pytest.raises(ValueError, match="EXAM_MANAGER_TIMEOUT") as raised:
        runpy.run_path(exam_requests.__file__, run_name="exam_requests")
    wrong = "it is not a number of seconds above 0"
    assert str(raised.value) == f"EXAM_MANAGER_TIMEOUT is {setting!r}: {wrong}"


def test_the_limit_that_is_set_is_the_one_that_is_sent_and_named(mock, monkeypatch):
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 6.5)
    mock.get(GET_TASK.url(), body=requests.ReadTimeout())
    assert GET_TASK.fails(504) == "the exam manager sent nothing for 6.5 s"
    assert mock.calls[0].request.req_kwargs["timeout"] == 6.5
