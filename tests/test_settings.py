"""What the operator sets: a setting that cannot work stops the import, and says why."""

from importlib.util import module_from_spec

import pytest
import requests

import exam_requests
from calls import GET_TASK

URL, TIMEOUT = "EXAM_MANAGER_URL", "EXAM_MANAGER_TIMEOUT"


@pytest.fixture
def imported(monkeypatch):
    """Import the module with a setting."""

    def with_setting(name, value):
        monkeypatch.setenv(name, value)
        module = module_from_spec(exam_requests.__spec__)
        exam_requests.__spec__.loader.exec_module(module)
        return vars(module)

    return with_setting


@pytest.mark.parametrize(
    ("address", "base"),
    [
        *((blank, "http://exam-manager:8000") for blank in ("", " \r\n")),
        ("https://exams.clinic.example:8443", "https://exams.clinic.example:8443"),
        ("https://exams.clinic.example/scanhub//", "https://exams.clinic.example/scanhub"),
        ("http://h/api/v1/exam-manager", "http://h/api/v1/exam-manager"),
        ("http://exams.clinic.example./a%20b", "http://exams.clinic.example./a%20b"),
        ("http://exam_manager\r\n", "http://exam_manager"),
        ("HTTP://10.0.0.7:80", "HTTP://10.0.0.7:80"),
        ("http://[fd00::7]:8000", "http://[fd00::7]:8000"),
        ("http://prüfung.example", "http://prüfung.example"),
    ],
)
def test_the_address_is_taken_from_the_environment(imported, address, base):
    module = imported(URL, address)
    for name in ("task", "result", "sequence"):
        assert module[f"{name.upper()}_URI"] == f"{base}/api/v1/exam/{name}"


@pytest.mark.parametrize(("setting", "seconds"), [("", 3), ("86400", 86400), (" 0.5\r\n", 0.5)])
def test_the_limit_of_a_step_is_taken_from_the_environment(imported, setting, seconds):
    assert imported(TIMEOUT, setting)["_STEP_SECONDS"] == seconds


def test_the_limit_that_is_set_is_used_and_named(mock, monkeypatch):
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 6.5)
    mock.get(GET_TASK.url(), body=requests.ReadTimeout())
    assert GET_TASK.fails(504) == "the exam manager sent nothing for 6.5 s"
    assert mock.calls[0].request.req_kwargs["timeout"] == 6.5


WRONG = {
    "it does not begin with http:// or https://": [
        *("exam-manager:8000", "//exam-manager:8000", "htpp://exam-manager:8000"),
        *("http:/exam-manager:8000", "None", "${EXAM_MANAGER}"),
    ],
    "there are quotation marks around it": ['"http://exam-manager:8000"', "'http://h'"],
    "it has no valid host name": [
        *("http://", "http://:8000", "http://${HOST}:8000", "http://ex..ample"),
        *("http://exam manager:8000", "http://exam-manager;8000", "http://exam\u2011manager"),
    ],
    "Invalid IPv6 URL": ["http://[::1"],
    "Port could not be cast to integer value as '8000 '": ["http://exam-manager:8000 # comment"],
    "Port out of range 0-65535": ["http://exam-manager:80000"],
    "its port is empty or 0": ["http://exam-manager:0", "http://h:", "http://http://exam-manager"],
    "it contains a ? or a #": ["http://h?", "http://h#", "http://h/a?b#c"],
    "it contains /api/v1/exam, which is added to it": [
        *("http://h/api/v1/exam", "http://h/api/v1/exam/", "http://h/api/v1/exam/task"),
    ],
    "its path is not valid": [
        "http://h/${PREFIX}",
        "http://h/a b",
        "http://h/100%",
        "http://h/%zz",
    ],
    "it contains a line break or another invisible character": [
        *("http://exam\n-manager", "http://exam\tmanager:8000", "http://h/a\rb"),
    ],
}
SECONDS = ["0", "-1", "nan", "inf", "86401", "1e10", "3 s", "3,5", '"3"', "None"]


@pytest.mark.parametrize(
    ("name", "setting", "wrong"),
    [(URL, setting, wrong) for wrong, settings in WRONG.items() for setting in settings]
    + [
        (TIMEOUT, text, "it is not a number of seconds above 0 and up to 86400") for text in SECONDS
    ],
)
def test_a_setting_that_cannot_work_stops_the_import_and_says_why(imported, name, setting, wrong):
    with pytest.raises(ValueError, match=name) as raised:
        imported(name, setting)
    assert str(raised.value) == f"{name} is {setting!a}: {wrong}"


def test_nothing_stands_between_an_ipv6_address_and_its_port(imported):
    with pytest.raises(ValueError, match="it has no valid host name|Invalid IPv6 URL"):
        imported(URL, "http://[::1]x:80")


USERS = ["http://eva:secret", "eva:secret", "http://eva:sec/ret", "http://eva:sec\nret", "a@b:c"]


@pytest.mark.parametrize("user", USERS)
def test_the_password_of_an_address_is_not_shown(imported, user):
    shown = r"is '\.\.\.@exam-manager:8000': it contains a user name$"
    with pytest.raises(ValueError, match=f"^{URL} {shown}"):
        imported(URL, f"{user}@exam-manager:8000")
