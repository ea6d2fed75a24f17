"""What goes out of a payload as JSON, and what does not and why."""

import json
import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated
from uuid import UUID

import numpy as np
import pytest
import responses
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, computed_field

import calls
import exam_requests
from calls import GET_TASK, PAYLOAD_VALUE, SET_RESULT, SET_TASK, TASK_ID, task
from exam_models import ResultType
from exam_requests import AcquisitionTaskOut, SetResult


def sent(call, payload):
    """Make the call; return what it sends."""
    with responses.RequestsMock() as mock:
        mock.put(call.url(), json=call.answer)
        call(payload=payload)
        return json.loads(mock.calls[0].request.body)


def refused(call, payload):
    """Make the call, which is to be refused unsent; return why."""
    with responses.RequestsMock():
        return call.fails(422, payload=payload)


def with_meta(value):
    """Return a payload that has a value in its meta data."""
    return SetResult(type="MRD", directory="/d", meta={"value": value})


Coil = Enum("Coil", {"HEAD": "head"})


@dataclass
class Voxel:
    size: float
    file: Path


# What JSON can hold.


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (calls.META, calls.META),
        ([-0.0, 5e-324, "\N{GRINNING FACE}"], [-0.0, 5e-324, "\N{GRINNING FACE}"]),
        ({1: "int", None: "None", False: 0}, {"1": "int", "None": "None", "false": 0}),
        ({UUID(TASK_ID): 1, Coil.HEAD: 2, Path("/a"): 3}, {TASK_ID: 1, "head": 2, "/a": 3}),
        ([Path("/a/b"), UUID(TASK_ID), Coil.HEAD], ["/a/b", TASK_ID, "head"]),
        ({PurePosixPath("/a"): [PureWindowsPath("C:\\a")]}, {"/a": ["C:\\a"]}),
        ([{1}, frozenset({2}), (3, (4,))], [[1], [2], [3, [4]]]),
        ([b"UTF-8: \xc3\xa9", np.str_("a"), np.float64(0.5)], ["UTF-8: é", "a", 0.5]),
        ([date(2026, 2, 3), datetime(2026, 2, 3, 4, 5)], ["2026-02-03", "2026-02-03T04:05:00"]),
        ([Decimal("1.50"), timedelta(seconds=90)], ["1.50", "PT1M30S"]),
        (Voxel(0.5, Path("/a")), {"size": 0.5, "file": "/a"}),
        (SetResult(**calls.MRD), calls.MRD),
    ],
)
def test_what_json_can_hold_arrives(value, arrives):
    arrived = sent(SET_RESULT, with_meta(value))["meta"]["value"]
    assert json.dumps(arrived) == json.dumps(arrives)


def test_a_task_that_is_read_changed_and_written_back_loses_no_field(mock):
    held = everywhere(task(device_id=TASK_ID, datetime_updated="2026-02-03T04:05:07"))
    held["results"][0]["meta"] = calls.META | {"echo": [0.5] * 300_000}
    mock.get(SET_TASK.url(), json=held)
    mock.put(SET_TASK.url(), json=held | {"progress": 42})
    changed = GET_TASK()
    assert changed == AcquisitionTaskOut.model_validate(held)
    changed.progress = 42
    again = SET_TASK(payload=changed)
    assert json.loads(mock.calls[1].request.body) == held | {"progress": 42}
    assert again == changed


def everywhere(record):
    """Add fields that are newer than the models to a record and to all records in it."""
    if isinstance(record, dict):
        return {key: everywhere(value) for key, value in record.items()} | calls.NEWER
    return [everywhere(value) for value in record] if isinstance(record, list) else record


# What it cannot hold, or is not valid.

CIRCLE = {}
CIRCLE["itself"] = CIRCLE


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (math.nan, "", "NaN or an infinity"),
        (np.float32(1.5), "", "this numpy.float32"),
        (np.bool_(1), "", f"this numpy.{np.bool_.__name__}"),
        (np.zeros(2), "", "this numpy.ndarray"),
        (object(), "", "this object"),
        ("\ud800", "", "this str"),
        (b"\xff", "", "this bytes"),
        ({"seed": 10**5000}, ".seed", "this int"),
        ({"a": 1, np.int64(1): 1}, "", "this numpy.int64 as a key"),
        ({"coils": [{"snr": 1}, {"snr": math.nan}]}, ".coils.1.snr", "NaN or an infinity"),
        (([1], (2, b"\xff")), ".1.1", "this bytes"),
        ({7: Voxel(math.inf, Path())}, ".7.size", "NaN or an infinity"),
        (CIRCLE, ".itself" * 18, "this dict"),
    ],
)
def test_what_json_cannot_hold_is_a_422_that_names_its_place_and_type(value, place, kind):
    why = refused(SET_RESULT, with_meta(value))
    assert why == f"meta.value{place}: JSON cannot hold {kind}"


def task_with(**fields):
    """Return a task to send, with values that nobody has checked."""
    return SET_TASK.payload().model_copy(update=fields)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (None, "the payload is of type NoneType, not a model"),
        ({"name": "T1"}, "the payload is of type dict, not a model"),
        (Decimal(1), "the payload is of type decimal.Decimal, not a model"),
        (SET_RESULT.payload(), "name: Field required; description: Field required; "),
        (task_with(progress="abc"), "progress: Input should be a valid integer, unable to parse "),
        (task_with(progress=math.nan), "progress: JSON cannot hold NaN or an infinity"),
        (task_with(status=PAYLOAD_VALUE), "status: Input should be 'NEW', 'UPDATED', 'STARTED', "),
        (task_with(device_id=PAYLOAD_VALUE), "device_id: Input should be a valid UUID"),
        (task_with(calibration=["shims", "nose"]), "calibration.1: Input should be 'flip-angle', "),
    ],
)
def test_an_invalid_payload_is_a_422_that_says_why(payload, why):
    assert refused(SET_TASK, payload).startswith(why)


# Models of a caller.


def fail(_):
    raise RuntimeError(PAYLOAD_VALUE)


class Failing(BaseModel):
    directory: Annotated[str, AfterValidator(fail), PlainSerializer(fail)]


def test_what_the_code_of_a_model_raises_is_a_422(monkeypatch):
    why = refused(SET_RESULT, Failing.model_construct(directory="/d"))
    assert why == "the payload's model_dump raised PydanticSerializationError"
    payload = SET_RESULT.payload()
    monkeypatch.setattr(exam_requests, "SetResult", Failing)
    assert refused(SET_RESULT, payload) == "a validator raised RuntimeError"


class Own(SetResult, strict=True, extra="forbid"):
    """A model that would not read what it writes."""

    checksum: str = Field(serialization_alias="check-sum")
    meta: dict | None = Field(None, exclude=True)

    @computed_field
    def size(self) -> int:
        return len(self.files)


def test_a_subclass_is_sent_as_it_writes_itself_and_checked_as_it_will_be_read():
    payload = Own(type=ResultType.MRD, directory="/d", checksum="c")
    fields = {"type": "MRD", "directory": "/d", "files": [], "check-sum": "c", "size": 0}
    assert sent(SET_RESULT, payload) == fields
    payload.directory = 5
    assert refused(SET_RESULT, payload) == "directory: Input should be a valid string"


def test_whether_the_fields_of_a_parent_class_are_enough_is_left_to_the_exam_manager(monkeypatch):
    monkeypatch.setattr(exam_requests, "SetResult", exam_requests.ResultOut)
    assert sent(SET_RESULT, SetResult(**calls.MRD)) == calls.MRD
