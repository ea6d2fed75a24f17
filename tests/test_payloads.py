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
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, computed_field

import calls
import exam_requests
from calls import GET_TASK, PAYLOAD_VALUE, PUTS, SET_RESULT, SET_TASK, TASK_ID, each, result, task
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


class Coil(Enum):
    HEAD = "head"


@dataclass
class Voxel:
    size: float
    file: Path


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ({1: "int", None: "None"}, {"1": "int", "None": "None"}),
        ({True: 1, False: 0}, {"true": 1, "false": 0}),
        ({UUID(TASK_ID): 1, Coil.HEAD: 2, Path("/a"): 3}, {TASK_ID: 1, "head": 2, "/a": 3}),
        ([Path("/a/b"), UUID(TASK_ID), Coil.HEAD], ["/a/b", TASK_ID, "head"]),
        ([{1}, frozenset({2}), (3, (4,))], [[1], [2], [3, [4]]]),
        (b"UTF-8: \xc3\xa9", "UTF-8: é"),
        (Voxel(0.5, Path("/a")), {"size": 0.5, "file": "/a"}),
        (SetResult(**(fields := dict(type="MRD", directory="", files=[], meta={}))), fields),
        ([date(2026, 2, 3), datetime(2026, 2, 3, 4, 5)], ["2026-02-03", "2026-02-03T04:05:00"]),
        ([Decimal("1.50"), timedelta(seconds=90)], ["1.50", "PT1M30S"]),
        ([np.float64(0.5), np.str_("a")], [0.5, "a"]),
        ([10**400, 0.1 + 0.2, -0.0, 5e-324, 1.7976931348623157e308], ...),
        ("é\N{GRINNING FACE}\x00\u2028", ...),
    ],
    ids=range(13),
)
def test_meta_arrives_as_from_scanhubs_own_client(value, arrives):
    payload = with_meta(value)
    got = sent(SET_RESULT, payload)
    assert got == json.loads(json.dumps(payload, default=jsonable_encoder))
    assert got["meta"]["value"] == (value if arrives is ... else arrives)


def test_pure_paths_arrive_as_text():
    paths = {PurePosixPath("/a"): [PureWindowsPath("C:\\a")]}
    assert sent(SET_RESULT, with_meta(paths))["meta"]["value"] == {"/a": ["C:\\a"]}


json_values = st.recursive(
    st.from_type(None | bool | int | str) | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@calls.steady
@given(meta=st.dictionaries(st.text(), json_values))
def test_meta_goes_out_and_comes_back_unchanged(meta):
    with responses.RequestsMock() as mock:
        mock.put(SET_RESULT.url(), json=result(meta=meta))
        payload = SET_RESULT.payload()
        payload.meta = meta
        payload.files = list(meta)
        got = SET_RESULT(payload=payload)
        assert json.loads(mock.calls[0].request.body) == payload.model_dump(mode="json")
    assert json.dumps(got.meta) == json.dumps(meta)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((number, "NaN or an infinity") for number in (math.nan, math.inf, -math.inf)),
        (np.float32(1.5), "this numpy.float32"),
        (np.int64(1), "this numpy.int64"),
        (np.bool_(1), f"this numpy.{np.bool_.__name__}"),
        (np.zeros(2), "this numpy.ndarray"),
        (object(), "this object"),
        (object, "this type"),
        ("\ud800", "this str"),
        (b"\xff", "this bytes"),
        ({np.int64(1): 1}, "this numpy.int64 as a key"),
        ({"a": 1, "\ud800": 1}, "this str as a key"),
        (10**5000, "this int"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda value: value, "meta.value"),
        (lambda value: {"coils": [{"snr": 1}, {"snr": value}]}, "meta.value.coils.1.snr"),
        (lambda value: ([1], (2, value)), "meta.value.1.1"),
        (lambda value: {7: Voxel(value, Path())}, "meta.value.7.size"),
    ],
    ids=["plain", "nested", "tuples", "data class"],
)
def test_what_json_cannot_hold_is_a_422_that_names_its_place_and_type(value, kind, wrap, place):
    why = refused(SET_RESULT, with_meta(wrap(value)))
    assert why == f"{place}: JSON cannot hold {kind}"


def test_a_value_that_contains_itself_or_is_too_deep_for_the_exam_manager_is_a_422():
    circle, deep = {}, 1
    circle["itself"] = circle
    for _ in range(210):
        deep = [deep]
    for value in (circle, deep):
        assert "JSON cannot hold this" in refused(SET_RESULT, with_meta(value))


def test_fields_outside_meta_are_checked_too():
    payload = SET_TASK.payload()
    payload.acquisition_parameter.fov_offset.x = math.nan
    why = refused(SET_TASK, payload)
    assert why == "acquisition_parameter.fov_offset.x: JSON cannot hold NaN or an infinity"
    payload = SET_TASK.payload()
    payload = AcquisitionTaskOut.model_validate(task(later={"nested": [np.float32(1)]}))
    assert refused(SET_TASK, payload) == "later.nested.0: JSON cannot hold this numpy.float32"


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("progress", "abc", "progress: Input should be a valid integer"),
        ("name", None, "name: Input should be a valid string"),
        ("status", PAYLOAD_VALUE, "status: Input should be 'NEW', 'UPDATED', 'STARTED', "),
        ("device_id", PAYLOAD_VALUE, "device_id: Input should be a valid UUID"),
        ("calibration", ["shims", "nose"], "calibration.1: Input should be 'flip-angle', "),
        ("acquisition_parameter", {"fov_scaling": 5}, "acquisition_parameter.fov_scaling: Input"),
        ("results", [PAYLOAD_VALUE], "results.0: Input should be a valid dictionary or "),
        ("datetime_created", "yesterday", "datetime_created: Input should be a valid datetime"),
    ],
)
def test_a_field_with_an_invalid_value_is_a_422_that_names_it(field, value, why):
    payload = SET_TASK.payload()
    setattr(payload, field, value)
    assert refused(SET_TASK, payload).startswith(why)


@each(PUTS)
def test_a_field_that_is_missing_is_a_422(call):
    why = refused(call, type(call.payload()).model_construct())
    assert ": Field required; " in why


@each(PUTS)
@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (None, "NoneType"),
        ({"type": "MRD"}, "dict"),
        ("MRD", "str"),
        (Decimal(1), "decimal.Decimal"),
    ],
)
def test_a_payload_that_is_not_a_model_is_a_422_that_names_its_type(call, payload, kind):
    assert refused(call, payload) == f"the payload is of type {kind}, not a model"


def test_what_the_code_of_a_model_raises_is_a_422(monkeypatch):
    def refuse(value):
        raise error

    class Read(BaseModel):
        directory: Annotated[str, AfterValidator(refuse)]

    class Written(SetResult):
        directory: Annotated[str, PlainSerializer(refuse)]

    error = KeyError(PAYLOAD_VALUE)
    payload = Written.model_construct(**SET_RESULT.payload().model_dump())
    why = "the payload's model_dump raised PydanticSerializationError"
    assert refused(SET_RESULT, payload) == why
    payload = SET_RESULT.payload()
    monkeypatch.setattr(exam_requests, "SetResult", Read)
    for error, why in (
        (ValueError(f"no, {PAYLOAD_VALUE}"), "directory: Value error"),
        (RuntimeError(PAYLOAD_VALUE), "a validator raised RuntimeError"),
    ):
        assert refused(SET_RESULT, payload) == why


class Strict(SetResult, strict=True):
    pass


class Computed(SetResult, extra="forbid"):
    @computed_field
    def size(self) -> int:
        return len(self.files)


class Aliased(SetResult):
    checksum: str = Field(serialization_alias="check-sum")


class Excluded(SetResult):
    meta: dict | None = Field(None, exclude=True)


@pytest.mark.parametrize(
    ("model", "own"),
    [
        (Strict, {"meta": None}),
        (Computed, {"meta": None, "size": 1}),
        (Aliased, {"meta": None, "check-sum": "c"}),
        (Excluded, {}),
    ],
)
def test_a_subclass_is_sent_as_it_writes_itself_and_checked_as_it_will_be_read(model, own):
    more = {"checksum": "c"} if model is Aliased else {}
    payload = model(type=ResultType.MRD, directory="/d", files=["a.mrd"], **more)
    fields = {"type": "MRD", "directory": "/d", "files": ["a.mrd"]}
    assert sent(SET_RESULT, payload) == fields | own
    payload.directory = math.nan
    assert refused(SET_RESULT, payload) == "directory: JSON cannot hold NaN or an infinity"
    payload.directory = 5
    assert refused(SET_RESULT, payload) == "directory: Input should be a valid string"


def test_whether_the_fields_of_a_parent_class_are_enough_is_left_to_the_exam_manager(monkeypatch):
    class BaseTask(BaseModel):
        name: str

    class Task(BaseTask):
        progress: int

    monkeypatch.setattr(exam_requests, "AcquisitionTaskOut", Task)
    with responses.RequestsMock() as mock:
        mock.put(SET_TASK.url(), json={"name": "t", "progress": 1})
        SET_TASK(payload=BaseTask(name="t"))
        assert json.loads(mock.calls[0].request.body) == {"name": "t"}
    assert refused(SET_TASK, SET_RESULT.payload()).startswith("name: Field required")


# Round trips over the bundled models.


def everywhere(record):
    """Add fields that are newer than the models to a record and to all records in it."""
    if isinstance(record, dict):
        return {key: everywhere(value) for key, value in record.items()} | calls.NEWER
    return [everywhere(value) for value in record] if isinstance(record, list) else record


@pytest.mark.parametrize("numbers", [1, 300_000])
def test_a_task_that_is_read_changed_and_written_back_loses_no_field(mock, numbers):
    held = everywhere(task(device_id=TASK_ID, datetime_updated="2026-02-03T04:05:07"))
    held["results"][0]["meta"] = calls.META | {"echo": [0.5] * numbers}
    mock.get(SET_TASK.url(), json=held)
    mock.put(SET_TASK.url(), json=held | {"progress": 42})
    changed = GET_TASK()
    assert changed == AcquisitionTaskOut.model_validate(held)
    changed.progress = 42
    again = SET_TASK(payload=changed)
    assert json.loads(mock.calls[1].request.body) == held | {"progress": 42}
    assert again == changed
