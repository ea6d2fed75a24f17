"""What the operator sets: a setting that cannot work stops the import, and says why."""

from importlib.util import module_from_spec

import pytest

import exam_requests

URL, TIMEOUT = "EXAM_MANAGER_URL", "EXAM_MANAGER_TIMEOUT"


def imported(monkeypatch, name, setting):
    """Import the module with a setting; return what is in it."""
    monkeypatch.setenv(name, setting)
    module = module_from_spec(exam_requests.__spec__)
    exam_requests.__spec__.loader.exec_module(module)
    return vars(module)


def refused(monkeypatch, name, setting):
    """Import the module with a setting that stops it; return why."""
    with pytest.raises(ValueError, match=name) as raised:
        imported(monkeypatch, name, setting)
    return str(raised.value)


# The address.


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("", "http://exam-manager:8000"),
        (" \r\n", "http://exam-manager:8000"),
        ("http://exam_manager\r\n", "http://exam_manager"),
        ("https://exams.clinic.example/scanhub//", "https://exams.clinic.example/scanhub"),
        ("http://exams.clinic.example./a%20b", "http://exams.clinic.example./a%20b"),
        ("http://h/api/v1/exam-manager", "http://h/api/v1/exam-manager"),
        ("HTTP://10.0.0.7:80", "HTTP://10.0.0.7:80"),
        ("http://[fd00::7]:8000", "http://[fd00::7]:8000"),
        ("http://prüfung.example", "http://prüfung.example"),
    ],
)
def test_the_address_is_taken_from_the_environment(monkeypatch, address, base):
    module = imported(monkeypatch, URL, address)
    for name in ("task", "result", "sequence"):
        assert module[f"{name.upper()}_URI"] == f"{base}/api/v1/exam/{name}"


WRONG_ADDRESSES = {
    "there are quotation marks around it": ['"http://exam-manager:8000"', "'http://h'"],
    "it does not begin with http:// or https://": [
        *("exam-manager:8000", "//exam-manager:8000", "htpp://h", "http:/h", "None", "${URL}"),
    ],
    "it contains a ? or a #": ["http://h?", "http://h#", "http://h/a?b#c"],
    "Invalid IPv6 URL": ["http://[::1"],
    "Port could not be cast to integer value as '8000 '": ["http://exam-manager:8000 # comment"],
    "its port is empty or 0": ["http://exam-manager:0", "http://h:", "http://http://exam-manager"],
    "it has no valid host name": [
        *("http://", "http://:8000", "http://${HOST}:8000", "http://ex..ample"),
        *("http://exam manager:8000", "http://exam-manager;8000", "http://exam\u2011manager"),
    ],
    "its path is not valid": ["http://h/${PREFIX}", "http://h/a b", "http://h/%", "http://h/%zz"],
    "it contains /api/v1/exam, which is added to it": [
        *("http://h/api/v1/exam", "http://h/api/v1/exam/", "http://h/api/v1/exam/task"),
    ],
    "it contains a line break or another invisible character": ["http://a\nb", "http://h/a\tb"],
}


@pytest.mark.parametrize("why", WRONG_ADDRESSES)
def test_an_address_that_cannot_work_stops_the_import_and_says_why(monkeypatch, why):
    for address in WRONG_ADDRESSES[why]:
        assert refused(monkeypatch, URL, address) == f"{URL} is {address!a}: {why}"


def test_nothing_stands_between_an_ipv6_address_and_its_port(monkeypatch):
    why = refused(monkeypatch, URL, "http://[::1]x:80")
    assert why.endswith(("it has no valid host name", "Invalid IPv6 URL"))  # By Python's version.


def test_the_password_of_an_address_is_not_shown(monkeypatch):
    for user in ("http://eva:secret", "eva:secret", "http://e:sec/ret", "http://e:s\nret", "a@b:c"):
        why = refused(monkeypatch, URL, f"{user}@exam-manager:8000")
        assert why == f"{URL} is '...@exam-manager:8000': it contains a user name"


# The limit of a step.


def test_the_limit_is_taken_from_the_environment(monkeypatch):
    for setting, seconds in (("", 3), ("86400", 86400), (" 0.5\r\n", 0.5)):
        assert imported(monkeypatch, TIMEOUT, setting)["_STEP_SECONDS"] == seconds


def test_a_limit_that_cannot_work_stops_the_import_and_says_why(monkeypatch):
    why = "it is not a number of seconds above 0 and up to 86400"
    for setting in ("0", "-1", "nan", "inf", "86401", "1e10", "3 s", "3,5", '"3"', "None"):
        assert refused(monkeypatch, TIMEOUT, setting) == f"{TIMEOUT} is {setting!a}: {why}"
