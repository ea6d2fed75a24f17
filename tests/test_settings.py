"""What the operator sets: an address that cannot work stops the import, and says why."""

import runpy

import pytest

import exam_requests

DOCUMENTED = "http://exam-manager:8000"


@pytest.mark.parametrize(
    ("address", "base"),
    [
        (None, DOCUMENTED),
        ("", DOCUMENTED),
        (" \r\n", DOCUMENTED),
        ("https://exams.clinic.example:8443", "https://exams.clinic.example:8443"),
        ("https://exams.clinic.example/scanhub//", "https://exams.clinic.example/scanhub"),
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
        *('"http://exam-manager:8000"', "'http://exam-manager:8000'", "http//exam-manager:8000"),
        *("None", "${EXAM_MANAGER}"),
    ],
    "its host is not a name": [
        *("http:/exam-manager:8000", "http://", "http://:8000", "http://${HOST}:8000"),
        *("http://exam manager:8000", "http://exam-manager;8000"),
    ],
    "Invalid IPv6 URL": ["http://[::1"],
    "Port could not be cast to integer value as 'port'": ["http://exam-manager:port"],
    "Port could not be cast to integer value as '$PORT'": ["http://exam-manager:$PORT"],
    "Port could not be cast to integer value as '80:80'": ["http://exam-manager:80:80"],
    "Port could not be cast to integer value as '80\"'": ['http://exam-manager:80"'],
    "Port out of range 0-65535": ["http://exam-manager:80000"],
    "its port is 0": ["http://exam-manager:0"],
    "it holds a query or a fragment": ["http://exam-manager:8000?a=b", "http://exam-manager#a"],
    "it holds /api/v1/exam, which is added to it": [
        f"http://exam-manager/api/v1/exam{more}" for more in ("", "/", "/task")
    ],
    "its path is not one of names": ["http://exam-manager/${PREFIX}", "http://http://exam-manager"],
}


@pytest.mark.parametrize(
    ("address", "wrong"), [(url, wrong) for wrong, urls in WRONG.items() for url in urls]
)
def test_an_address_that_cannot_work_stops_the_import_and_says_why(address, wrong, monkeypatch):
    monkeypatch.setenv("EXAM_MANAGER_URL", address)
    with pytest.raises(ValueError, match="EXAM_MANAGER_URL") as raised:
        runpy.run_path(exam_requests.__file__, run_name="exam_requests")
    assert str(raised.value) == f"EXAM_MANAGER_URL is {address.strip().rstrip('/')!r}: {wrong}"


@pytest.mark.parametrize(
    ("scheme", "wrong"), [("http://", "it holds a user"), ("", "it does not begin with http")]
)
def test_the_password_of_an_address_is_not_shown(scheme, wrong, monkeypatch):
    monkeypatch.setenv("EXAM_MANAGER_URL", f"{scheme}eva:secret@exam-manager:8000")
    shown = r"^EXAM_MANAGER_URL is '\.\.\.@exam-manager:8000': "
    with pytest.raises(ValueError, match=shown + wrong):
        runpy.run_path(exam_requests.__file__, run_name="exam_requests")
