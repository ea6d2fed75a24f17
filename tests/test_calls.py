"""What each call sends, and what a caller gets for each answer of the status policy."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import requests
import responses
from responses import matchers

import exam_requests
from calls import (
    ANSWER_VALUE,
    CALLS,
    CREATE_BLANK_RESULT,
    DELETE_BLANK_RESULT,
    GET_SEQUENCE,
    GET_TASK,
    GETS,
    PAYLOAD_VALUE,
    SET_RESULT,
    SET_TASK,
    TASK_ID,
    TOKEN,
    Call,
    each,
    task,
)

OTHERS = [call for call in CALLS if call not in GETS]
RECORDS = [call for call in CALLS if call is not DELETE_BLANK_RESULT]


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    """Mock the exam manager: what a test expects must be asked for, and nothing else."""
    with responses.RequestsMock() as mock:
        yield mock


def expect(mock: responses.RequestsMock, call: Call, status: int, **answer: Any) -> None:
    """Expect the documented request and no other, once."""
    url, _, query = call.url().partition("?")
    parameters = {"task_id": call.record_id} if query else {}
    headers = {"Accept": "application/json", "Authorization": f"Bearer {TOKEN}"}
    body = lambda request: (request.body is None, "there is a body")  # noqa: E731
    if call.payload:
        payload = call.payload().model_dump(mode="json")
        length = str(len(json.dumps(payload, separators=(",", ":"))))
        headers |= {"Content-Type": "application/json", "Content-Length": length}
        body = matchers.json_params_matcher(payload)
    if call.method in {"POST", "DELETE"}:
        headers |= {"Connection": "close"}
    match = [
        matchers.query_param_matcher(parameters),
        matchers.header_matcher(headers, strict_match=True),
        body,
    ]
    mock.add(call.method, url, status=status, match=match, **answer)


def documented(mock: responses.RequestsMock, call: Call) -> Any:
    """Make the call and let the exam manager answer as it does."""
    expect(mock, call, call.status, **({"json": call.answer} if call.answer else {}))
    return call()


def test_get_task_gets_the_task(mock: responses.RequestsMock) -> None:
    got = documented(mock, GET_TASK)
    assert type(got) is exam_requests.AcquisitionTaskOut
    assert got.model_dump(mode="json") == GET_TASK.answer


def test_set_task_sends_the_whole_task_and_returns_it_as_it_now_is(
    mock: responses.RequestsMock,
) -> None:
    got = documented(mock, SET_TASK)
    assert type(got) is exam_requests.AcquisitionTaskOut
    assert got.model_dump(mode="json") == SET_TASK.answer


def test_get_sequence_gets_the_sequence_with_its_files(mock: responses.RequestsMock) -> None:
    got = documented(mock, GET_SEQUENCE)
    assert type(got) is exam_requests.MRISequenceOut
    assert got.model_dump(mode="json", by_alias=True) == GET_SEQUENCE.answer
    assert got.id == GET_SEQUENCE.record_id


def test_create_blank_result_names_the_task_in_the_query(mock: responses.RequestsMock) -> None:
    got = documented(mock, CREATE_BLANK_RESULT)
    assert type(got) is exam_requests.ResultOut
    assert got.model_dump(mode="json") == CREATE_BLANK_RESULT.answer


def test_delete_blank_result_names_the_result_in_the_path(mock: responses.RequestsMock) -> None:
    assert documented(mock, DELETE_BLANK_RESULT) is None


def test_set_result_sends_the_result_and_returns_it_as_it_now_is(
    mock: responses.RequestsMock,
) -> None:
    got = documented(mock, SET_RESULT)
    assert type(got) is exam_requests.ResultOut
    assert got.model_dump(mode="json") == SET_RESULT.answer


@each(CALLS)
def test_a_uuid_object_serves_as_an_id(mock: responses.RequestsMock, call: Call) -> None:
    mock.add(call.method, call.url(TASK_ID), status=call.status, json=call.answer or None)
    call(UUID(TASK_ID))


@each(CALLS)
def test_the_addresses_are_read_at_call_time(
    mock: responses.RequestsMock, call: Call, aim: Any
) -> None:
    aim("http://elsewhere:81")
    url = call.url().replace("exam-manager:8000", "elsewhere:81")
    mock.add(call.method, url, status=call.status, json=call.answer or None)
    call()


# What the exam manager refuses.


@each(CALLS)
@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_come_with_the_detail_of_the_exam_manager(
    mock: responses.RequestsMock, call: Call, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, status, json={"detail": "Invalid token."})
    assert call.fails(caplog, status) == f"{call.what}: Invalid token."


@each(GETS)
@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_cannot_be_found_is_a_404_of_the_gets(
    mock: responses.RequestsMock, call: Call, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, status, json={"detail": "Badly formed id."})
    noun = call.function.removeprefix("get_").capitalize()
    assert call.fails(caplog, 404) == f"{noun} not found: Badly formed id."


@each(GETS)
@pytest.mark.parametrize("status", [402, 405, 409, 410, 418, 429, 499])
def test_another_refusal_of_a_get_keeps_its_status(
    mock: responses.RequestsMock, call: Call, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, status, json={"detail": "Not now."})
    assert call.fails(caplog, status) == f"{call.what}: Not now."


@each(OTHERS)
@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 422, 429, 499])
def test_a_refusal_of_the_other_four_keeps_its_status_and_its_detail(
    mock: responses.RequestsMock, call: Call, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, status, json={"detail": "workflow_id must be an existing id."})
    detail = call.fails(caplog, status)
    assert detail == f"{call.what}: workflow_id must be an existing id."


@each(CALLS)
def test_any_other_status_is_a_502_that_names_it(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    undocumented = {100, 199, 200, 201, 202, 204, 206, 299, 300, 302, 307, 308, 399, 500, 503, 599}
    for status in undocumented - {call.status}:
        with responses.RequestsMock() as mock:
            body = {} if status in {100, 199, 204} else {"json": call.answer}
            expect(mock, call, status, headers={"Location": "http://other.example/"}, **body)
            assert call.fails(caplog, 502) == f"{call.what}: the exam manager answered {status}"


@pytest.mark.parametrize("task_type", ["DAG", "RECONSTRUCTION", "PROCESSING", "LATER", 5, None])
def test_a_task_of_another_type_is_a_400_of_get_task(
    mock: responses.RequestsMock, task_type: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, GET_TASK, 200, json=task(task_type=task_type))
    detail = GET_TASK.fails(caplog, 400)
    assert detail == "Error getting task: it is not an acquisition task"


def test_a_task_of_another_type_is_a_502_of_set_task(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, SET_TASK, 200, json=task(task_type="DAG"))
    detail = SET_TASK.fails(caplog, 502)
    assert detail == "Error updating task: it is not an acquisition task"


@each(RECORDS)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "is not JSON"),
        ("{}", "Field required"),
        ("[]", "Input should be a valid dictionary"),
        ("null", "Input should be a valid dictionary"),
        ("<html></html>", "is not JSON"),
        ('{"name": NaN}', "is not JSON"),
        ('{"name": "\\ud800"}', "is not JSON"),
        ('{"name": ' + "[" * 100_000, "is not JSON"),
        ('{"name": ' + "7" * 5000 + "}", "is not JSON"),
        (b'{"name": "\xff"}', "is not JSON"),
    ],
    ids=str,
)
def test_a_body_that_is_not_the_model_is_a_502(
    mock: responses.RequestsMock,
    call: Call,
    body: Any,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expect(mock, call, call.status, body=body)
    assert why in call.fails(caplog, 502)


@each(RECORDS)
def test_the_fields_that_are_wrong_are_named(
    mock: responses.RequestsMock, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"name": 5, "directory": 5} | {"id": "no id"}
    expect(mock, call, call.status, json={**call.answer, **wrong})
    detail = call.fails(caplog, 502)
    assert ("directory" if "directory" in call.answer else "name") + ": Input should be" in detail


@pytest.mark.parametrize("x", ["1e999", "7" * 400 + ".0"])
def test_a_number_beyond_a_float_is_a_502(
    mock: responses.RequestsMock, x: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(task()).replace('"x": 1.0', f'"x": {x}', 1)
    expect(mock, GET_TASK, 200, body=body)
    detail = GET_TASK.fails(caplog, 502)
    assert "acquisition_parameter.fov_scaling.x: Input should be a finite number" in detail


def test_a_number_beyond_a_float_in_the_meta_data_is_a_502(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({**SET_RESULT.answer, "meta": {ANSWER_VALUE: 0}}).replace("0}", "1e999}")
    expect(mock, SET_RESULT, 200, body=body)
    detail = SET_RESULT.fails(caplog, 502)
    why = "the exam manager's answer holds a number beyond a float"
    assert detail == f"Error updating result: {why}"


@pytest.mark.parametrize("text", ["", '"[,{', '\\"[,{\\'])
def test_so_many_values_are_read_and_no_more(
    mock: responses.RequestsMock,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = json.dumps(task(description=text * 9, later=[[[]]], last=text * 9))
    marks = sum(map(json.dumps(task(later=[[[]]], last="")).count, ",[{"))
    expect(mock, GET_TASK, 200, body=body)
    for enough in (marks, marks + 1):
        monkeypatch.setattr(exam_requests, "_VALUES", enough)
        assert GET_TASK().description == text * 9
    monkeypatch.setattr(exam_requests, "_VALUES", marks - 1)
    assert GET_TASK.fails(caplog, 502) == "Error getting task: the answer is too large"


CROWDED = b'{"detail": [[]' + b',{},[[[]]],"",{"":0},0' * 30_000 + b"]}"


@each(RECORDS)
def test_an_answer_that_would_take_long_to_read_is_a_502(
    mock: responses.RequestsMock, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, call.status, body=CROWDED)
    assert call.fails(caplog, 502) == f"{call.what}: the answer is too large"


def test_a_refusal_that_would_take_long_to_read_is_a_502(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, SET_RESULT, 422, body=CROWDED)
    assert SET_RESULT.fails(caplog, 502) == "Error updating result: the answer is too large"


def test_very_many_wrong_fields_are_counted(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, GET_TASK, 200, json=task(results=[1] * 101))
    assert GET_TASK.fails(caplog, 502).endswith("AcquisitionTaskOut: 101 fields are wrong")


def test_a_hundred_wrong_fields_are_named(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, GET_TASK, 200, json=task(results=[1] * 100))
    assert "results.0: Input should be a valid dictionary" in GET_TASK.fails(caplog, 502)


def test_a_problem_of_the_whole_has_no_field(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(
        mock,
        SET_RESULT,
        422,
        json={"detail": [{"type": "missing", "loc": ["body"], "msg": "Field required"}]},
    )
    assert SET_RESULT.fails(caplog, 422) == "Error updating result: Field required"


# What a detail says.


def test_a_list_of_problems_becomes_field_and_message(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    problems = [
        {"type": "enum", "loc": ["body", "type"], "msg": "Not that.", "input": PAYLOAD_VALUE},
        {
            "type": "value_error",
            "loc": ["body", "files", 3],
            "msg": f"Nor that., {PAYLOAD_VALUE}",
            "input": PAYLOAD_VALUE,
        },
        {
            "type": "union_tag_invalid",
            "loc": ["body"],
            "msg": f"Input tag '{PAYLOAD_VALUE}' found using 'a' does not match: 'b', 'c'",
        },
        {"type": "of_the_service", "loc": ["body", "d"], "msg": PAYLOAD_VALUE},
    ]
    expect(mock, SET_RESULT, 422, json={"detail": problems})
    detail = SET_RESULT.fails(caplog, 422)
    assert detail == (
        "Error updating result: type: Not that.; files.3: Nor that.;"
        " 'a' does not match: 'b', 'c'; d"
    )


@pytest.mark.parametrize(
    ("why", "detail"),
    [
        ("Task not found", "Task not found"),
        ("task NOT found.", "task NOT found."),
        ("Not Found", "Task not found"),
        ("", "Task not found"),
        ("The task 7 was not found.", "The task 7 was not found."),
        ("No such patient.", "Task not found: No such patient."),
    ],
)
def test_nothing_is_said_twice(
    mock: responses.RequestsMock, why: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, GET_TASK, 404, json={"detail": why})
    assert GET_TASK.fails(caplog, 404) == detail


@pytest.mark.parametrize(
    "body",
    ["", "gone", "[]", "null", '"detail"', "{}", '{"detail": null}', '{"detail": [{"msg": "m"}]}'],
)
def test_a_refusal_without_a_detail_names_its_status(
    mock: responses.RequestsMock, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, SET_RESULT, 404, body=body)
    detail = SET_RESULT.fails(caplog, 404)
    assert detail == "Error updating result: the exam manager answered 404"


def test_a_detail_is_cut_to_a_readable_length(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, SET_RESULT, 409, json={"detail": "7" * 2**20})
    assert SET_RESULT.fails(caplog, 409) == "Error updating result: " + "7" * 300


def test_a_detail_is_one_line_without_control_characters(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, SET_RESULT, 409, json={"detail": "Busy.\r\n2026 ERROR \x1b[31mforged\u2028line"})
    detail = SET_RESULT.fails(caplog, 409)
    assert detail == "Error updating result: Busy. 2026 ERROR [31mforged line"


@each(CALLS)
def test_a_token_that_comes_back_in_a_detail_is_taken_out(
    mock: responses.RequestsMock, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, 401, json={"detail": f"Unknown: {TOKEN}"})
    assert call.fails(caplog, 401) == f"{call.what}: Unknown: ..."


def test_a_token_that_is_a_word_leaves_other_words_alone(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    mock.put(SET_RESULT.url(), status=418)
    detail = SET_RESULT.fails(caplog, 418, token="t")  # noqa: S106
    assert detail == "Error updating result: the exam manager answered 418"


# What the log says.


@each(CALLS)
def test_a_call_is_logged_with_method_url_status_and_milliseconds(
    mock: responses.RequestsMock, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    documented(mock, call)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("exam_requests", "DEBUG")
    assert record.message.startswith(f"{call.method} {call.url()}: {call.status} in ")
    assert 0 < float(record.message.split()[-2]) < 5000
    assert record.message.endswith(" ms")


@each(CALLS)
def test_a_call_that_fails_is_logged_with_its_detail(
    mock: responses.RequestsMock, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    expect(mock, call, 409, json={"detail": "Busy."})
    detail = call.fails(caplog, 409)
    debug, warning = (record.message for record in caplog.records)
    assert debug.startswith(f"{call.method} {call.url()}: 409 in ")
    assert warning == f"{call.method} {call.url()}: 409 {detail}"


# What a caller's tests see when they mock a network that fails.


@each(CALLS)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (requests.ConnectionError("refused"), 503),
        (requests.exceptions.SSLError("certificate"), 503),
        (requests.ConnectTimeout("slow"), 504),
        (requests.ReadTimeout("slow"), 504),
        (requests.Timeout("slow"), 504),
        (OSError("no certificates"), 503),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_mocked_failure_of_the_network_is_a_503_or_504(
    mock: responses.RequestsMock,
    call: Call,
    error: Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mock.add(call.method, call.url(), body=error)
    call.fails(caplog, status)
    assert len(mock.calls) == 1
