"""What several files of tests share."""

import copy
import logging
import os
from contextlib import ExitStack

import pytest
import responses

import exam_manager as example

os.environ.pop("EXAM_MANAGER_URL", None)  # The tests have settings of their own.
os.environ.pop("EXAM_MANAGER_TIMEOUT", None)
os.environ.pop("REQUESTS_CA_BUNDLE", None)

import exam_requests  # noqa: E402
from calls import SECRETS
from sockets import Server, reply


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    """Give each test connections of its own."""
    monkeypatch.setattr(exam_requests, "_sessions", {})
    yield
    for session in exam_requests._sessions.values():
        session.close()


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog):
    """See after each test that no log record of ours shows a token or a value."""
    caplog.set_level(logging.DEBUG)
    yield
    names = {"exam_requests", "uploads"}
    ours = [log for log in caplog.get_records("call") if log.name in names]
    logged = "\n".join(map(caplog.handler.format, ours))
    assert not any(secret in logged for secret in SECRETS)


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

        def start(answer, **how):
            server = stack.enter_context(Server(answer, **how))
            aim(server.url)
            return server

        yield start


@pytest.fixture
def server(serve):
    """Run a server that answers each call as documented."""
    return serve(reply)


@pytest.fixture
def short_limit(monkeypatch):
    """Shorten the limit of a step, for what is never to pass it."""
    monkeypatch.setattr(exam_requests, "_STEP_SECONDS", 0.2)


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
