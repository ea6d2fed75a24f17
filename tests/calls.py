"""The calls as data, and what several files of tests compare with."""

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import HTTPException
from hypothesis import HealthCheck, settings

import exam_requests

EXAM_URI = "http://exam-manager:8000/api/v1/exam"
TASK_ID = "3f0c1c52-6f0e-4d0e-9a54-2f6f6a1b7c11"
RESULT_ID = "9b7d4d0e-55a3-4c57-8a6e-0d8f4d1d2e22"
SEQUENCE_ID = "65a1b2c3d4e5f60718293a4b"
TOKEN = "5ec2e7" * 86  # as long as a real one
PAYLOAD_VALUE = "a name that only the payload has"
ANSWER_VALUE = "a name that only the answer has"
SECRETS = (TOKEN, PAYLOAD_VALUE, ANSWER_VALUE)
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"  # an id that no record has
MRD = {"type": "MRD", "directory": "/data/1", "files": ["a.mrd"], "meta": {"snr": 4.5}}

UNCONNECTED = "no connection to the exam manager: "
ENDED = "the connection ended before an answer: "
ANSWERED = "the exam manager, or a proxy in front of it, answered"
LIMIT = f"{exam_requests._STEP_SECONDS:g} s"
COULD_NOT = "Could not {}, either because it does not exist, or for another reason."

# Fields that are newer than the models, and meta data of all that JSON holds.
NEWER = {"later": {"x": [1, {"y": None}]}, "other": "text"}
META = {"é": [1, 0.1 + 0.2, 10**400, {"nul": "\x00", "deep": [[[None, True]]]}], "7": {}}

reproducible = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def result(**fields):
    """Return a result as the exam manager answers it."""
    held = dict(type="NOT_SET", directory="", files=[], meta=None)
    held |= dict(task_id=TASK_ID, id=RESULT_ID, datetime_created="2026-02-03T04:05:06.000007")
    return held | fields


def task(**fields):
    """Return an acquisition task as the exam manager answers it."""
    held = dict(name=ANSWER_VALUE, description="localizer", destination="")
    held |= dict(task_type="ACQUISITION", status="NEW", progress=0, is_template=False, position=2)
    held |= dict(workflow_id="0d0e7b0a-2d7f-4f3c-8f59-6f6a2a1b0c33", device_id=None, id=TASK_ID)
    held |= dict(calibration=["frequency", "shims"], sequence_id=SEQUENCE_ID, creator="max")
    axes = {"x": 1.0, "y": 2.0, "z": 3.0}
    scaling = dict(fov_scaling=axes, fov_offset=axes, fov_rotation=axes)
    limits = dict(patient_height=180, patient_weight=80, patient_gender="MALE", patient_age=40)
    held |= dict(acquisition_parameter=scaling, acquisition_limits=limits, results=[result()])
    held |= dict(datetime_created="2026-02-03T04:05:06.000007", datetime_updated=None)
    return held | fields


def sequence(**fields):
    """Return a sequence as the exam manager answers it."""
    held = dict(name=ANSWER_VALUE, description="", sequence_type="gre", tags=["a"])
    held |= dict(_id=SEQUENCE_ID, created_at="2026-02-03T04:05:06.007000", updated_at=None)
    held |= dict(seq_file="# Pulseq\n[VERSION]\nmajor 1\n", seq_file_extension=".seq")
    return held | dict(xml_file="<ismrmrdHeader/>", xml_file_extension=".xml") | fields


def task_payload():
    """Return a task to send."""
    return exam_requests.AcquisitionTaskOut.model_validate(task(name=PAYLOAD_VALUE))


def result_payload():
    """Return a result to send."""
    fields = {"type": "MRD", "directory": PAYLOAD_VALUE, "files": ["a.mrd"], "meta": {"snr": 4.5}}
    return exam_requests.SetResult.model_validate(fields)


@dataclass(frozen=True)
class Call:
    """One of the functions."""

    function: str
    method: str
    path: str
    record_id: str
    status: int
    answer: Any
    what: str
    payload: Callable[[], Any] | None = None

    def url(self, record_id=None):
        """Return the URL that the call is to be sent to."""
        return EXAM_URI + self.path + (self.record_id if record_id is None else record_id)

    def __call__(self, record_id=..., token=TOKEN, payload=...):
        """Make the call."""
        arguments = [self.record_id if record_id is ... else record_id]
        if self.payload:
            arguments.append(self.payload() if payload is ... else payload)
        return getattr(exam_requests, self.function)(*arguments, token)

    def succeeds(self):
        """Make the call, which is to return what the exam manager answers."""
        got = self()
        assert (got and got.model_dump(mode="json", by_alias=True)) == self.answer

    def fails(self, status, **arguments):
        """Make the call, which is to fail with this status and to show no secret; return why."""
        with pytest.raises(HTTPException) as raised:
            self(**arguments)
        error = raised.value
        assert error.status_code == status, error
        what, _, why = error.detail.partition(": ")
        assert what == self.what
        assert why
        assert error.detail.isprintable()
        assert len(error.detail) < 600
        assert error.headers == ({"WWW-Authenticate": "Bearer"} if status == 401 else None)
        assert error.__cause__ is error.__context__ is None
        shown = [str(error), repr(error), "".join(traceback.format_exception(error))]
        for secret in (arguments.get("token"), *SECRETS):
            if isinstance(secret, str) and len(secret) > 20:
                assert not any(secret in text for text in shown)
        return why


# fmt: off
GET_TASK = Call(
    "get_task", "GET", "/task/", TASK_ID, 200, task(), "Error getting task")
SET_TASK = Call(
    "set_task", "PUT", "/task/", TASK_ID, 200, task(), "Error updating task", task_payload)
GET_SEQUENCE = Call(
    "get_sequence", "GET", "/sequence/", SEQUENCE_ID, 200, sequence(), "Error getting sequence")
CREATE_BLANK_RESULT = Call(
    "create_blank_result", "POST", "/result?task_id=", TASK_ID, 201, result(),
    "Error creating blank result")
DELETE_BLANK_RESULT = Call(
    "delete_blank_result", "DELETE", "/result/", RESULT_ID, 204, None,
    "Error deleting blank result")
SET_RESULT = Call(
    "set_result", "PUT", "/result/", RESULT_ID, 200, result(), "Error updating result",
    result_payload)
# fmt: on
CALLS = [GET_TASK, SET_TASK, GET_SEQUENCE, CREATE_BLANK_RESULT, DELETE_BLANK_RESULT, SET_RESULT]
PUTS = [call for call in CALLS if call.method == "PUT"]
REPEATABLE = [call for call in CALLS if call.method in {"GET", "PUT"}]
SENT_ONCE = [call for call in CALLS if call not in REPEATABLE]
RECORDS = [call for call in CALLS if call.answer]


def called(request):
    """Return the call that a request on the wire belongs to."""
    method, target, _ = request.decode("latin-1").split(" ", 2)
    path = target.removeprefix("/api/v1/exam")
    return next(call for call in CALLS if call.method == method and path.startswith(call.path))


def fail_at_once(status):
    """Make all calls at the same time; each is to fail with this status. Return why they did."""
    with ThreadPoolExecutor(len(CALLS)) as threads:
        return set(threads.map(lambda call: call.fails(status), CALLS))


def each(calls):
    """Run a test for each of some calls."""
    return pytest.mark.parametrize("call", calls, ids=lambda call: call.function)
