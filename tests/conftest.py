"""What several files of tests share."""

import copy
import logging
import os
from contextlib import ExitStack

import pytest
import responses

import exam_manager as example

os.environ.pop("EXAM_MANAGER_URL", None)  # The tests have exam managers of their own.

import exam_requests  # noqa: E402
from calls import Call
from sockets import Server, reply


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    """Give each test connections of its own."""
    session = exam_requests._Session()
    monkeypatch.setattr(exam_requests, "_sessions", [session])
    yield
    session.close()


@pytest.fixture(autouse=True)
def log(caplog, monkeypatch):
    """Let each call that fails look for secrets in the log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(Call, "log", caplog, raising=False)


@pytest.fixture
def mock():
    """Mock the exam manager: what a test expects must be asked for, and nothing else."""
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def aim(monkeypatch):
    """Direct the calls to another address."""

    def at(url):
        for name in ("task", "result", "sequence"):
            monkeypatch.setattr(exam_requests, f"{name.upper()}_URI", f"{url}/api/v1/exam/{name}")

    return at


@pytest.fixture
def serve(aim):
    """Start servers on real sockets; the calls go to the one that was started last."""
    with ExitStack() as stack:

        def start(answer):
            server = stack.enter_context(Server(answer))
            aim(server.url)
            return server

        yield start


@pytest.fixture
def server(serve):
    """Run a server that answers each call as documented."""
    return serve(reply)


@pytest.fixture
def short(monkeypatch):
    """Shorten the time limits to tenths of a second."""
    monkeypatch.setattr(exam_requests, "_CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(exam_requests, "_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(exam_requests, "_ANSWER_SECONDS", 0.5)


@pytest.fixture(scope="session")
def running_exam_manager():
    """Run the exam manager of the examples."""
    with example.running() as manager:
        yield manager


@pytest.fixture
def exam_manager(running_exam_manager, aim):
    """Direct the calls to the exam manager of the examples; its records are as at its start."""
    records = copy.deepcopy(vars(running_exam_manager))
    aim(running_exam_manager.url)
    yield running_exam_manager
    vars(running_exam_manager).update(records)
