"""What a caller gets for each answer of the exam manager, and what stands in the log."""

import json
import logging
import time
import typing

import pytest
import requests
import requests_mock
import responses
from hypothesis import given
from hypothesis import strategies as st
from responses import matchers

import calls
import exam_requests
from calls import ANSWERED, CALLS, GET_SEQUENCE, GET_TASK, LIMIT, RECORDS, SET_RESULT, TOKEN, each


def answered(call, status, body, raised=None, **arguments):
    """Make the call, sent once, which must fail with this status or `raised`; return why."""
    with responses.RequestsMock() as mock:
        content = {"body": body} if isinstance(body, (str, bytes)) else {"json": body}
        mock.add(call.method, call.url(arguments.get("record_id")), status=status, **content)
        why = call.fails(raised or status, **arguments)
        assert len(mock.calls) == 1
        return why


# What the exam manager refuses.


@each(CALLS)
@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 418, 429, 499])
def test_a_refusal_has_the_status_and_the_detail_of_the_exam_manager(call, status):
    assert answered(call, status, {"detail": "Not like this."}) == "Not like this."


@each(CALLS)
@pytest.mark.parametrize("status", [400, 422])
def test_a_get_of_an_invalid_id_is_a_404(call, status):
    raised = 404 if call.method == "GET" else status
    assert answered(call, status, {"detail": "No such id."}, raised) == "No such id."


PAGES = ["", "<html>Bad Request</html>", "[]", "null", '"detail"', "{}", '{"detail": null}']
PAGES += ['{"detail": ""}', '{"detail": [{"msg": "m"}]}', b"\xff", '{"detail": {"a": 1}}']
PAGES += ['{"detail": [{"msg": 5, "type": "x", "loc": []}]}']


@each(CALLS)
@pytest.mark.parametrize("status", [400, 401, 404])
@pytest.mark.parametrize("body", PAGES)
def test_a_refusal_without_a_detail_keeps_its_status_and_says_so(call, status, body):
    why = answered(call, status, body)
    assert why == f"{ANSWERED} {status} without a detail"


@each(CALLS)
def test_an_undocumented_status_is_a_502_that_names_it(call):
    undocumented = {100, 102, 200, 201, 202, 204, 206, 299, 300, 302, 304, 307, 399, 500, 503, 599}
    for status in undocumented - {call.status}:
        why = answered(call, status, call.answer or {"detail": "no"}, 502)
        assert why == f"{ANSWERED} {status}"


TAGS = "using 'task_type' does not match any of the expected tags: 'ACQUISITION', 'DAG'"
INTEGER = "Input should be a valid integer, unable to parse string as an integer"
CHOICES = "Input should be 'calls.MRD', 'NUMPY' or 'NOT_SET'"


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("missing", "Field required", "Field required"),
        ("int_parsing", INTEGER, INTEGER),
        ("enum", CHOICES, CHOICES),
        ("literal_error", CHOICES, CHOICES),
        ("value_error", f"Value error, {calls.PAYLOAD_VALUE}", "Value error"),
        ("assertion_error", f"Assertion failed, {calls.PAYLOAD_VALUE}", "Assertion failed"),
        ("uuid_parsing", "Input should be a valid UUID, found `n`", "Input should be a valid UUID"),
        ("union_tag_invalid", f"Input tag 'a,\n'b'' found {TAGS}", f"Input tag found {TAGS}"),
    ],
)
def test_a_list_of_problems_becomes_field_and_message_without_values(kind, message, shown):
    problem = {"type": kind, "msg": message, "input": calls.PAYLOAD_VALUE}
    problems = [problem | {"loc": loc} for loc in (["body"], ["body", "files", 3])]
    assert answered(SET_RESULT, 422, {"detail": problems}) == f"{shown}; files.3: {shown}"


@each(CALLS)
def test_a_500_says_if_the_id_is_malformed(call):
    kind, valid = ("an ObjectId", "0aF" * 8) if call == GET_SEQUENCE else ("a UUID", calls.NEVER)
    for record_id, why in ((valid, ""), ("task-1", f"; the id is not {kind}")):
        got = answered(call, 500, "Internal Server Error", 502, record_id=record_id)
        assert got == f"{ANSWERED} 500{why}"


# What it answers instead of the record.


@pytest.mark.parametrize("task_type", ["DAG", "RECONSTRUCTION", "PROCESSING", "LATER", 5, None])
@pytest.mark.parametrize(("call", "status"), [(GET_TASK, 400), (calls.SET_TASK, 502)])
def test_another_type_of_task_is_a_400_from_get_task_and_a_502_from_set_task(
    mock, call, status, task_type
):
    mock.add(call.method, call.url(), json=calls.task(task_type=task_type))
    assert call.fails(status) == "it is not an acquisition task"


NOT_JSON = ["", "<html></html>", '{"name": "\\ud800"}', '{"name": "abc', b'{"name": "\xff"}']


@each(RECORDS)
@pytest.mark.parametrize("body", [*NOT_JSON, '{"name": ' + "[" * 100_000], ids=range(6))
def test_a_body_that_is_not_json_is_a_502_that_names_no_model(call, body):
    assert answered(call, call.status, body, 502) == "the answer is not JSON"


@each(RECORDS)
@pytest.mark.parametrize("body", ["{}", "[]", "null", "7"])
def test_a_body_that_is_not_the_record_is_a_502_that_names_the_model(call, body):
    why = answered(call, call.status, body, 502)
    model = typing.get_type_hints(getattr(exam_requests, call.function))["return"]
    assert why.startswith(f"the answer is not a valid {model.__name__}: ")


@each(RECORDS)
def test_the_fields_that_are_wrong_are_named(mock, call):
    name = "directory" if "directory" in call.answer else "name"
    wrong = {key: value for key, value in call.answer.items() if "id" not in key} | {name: 5}
    mock.add(call.method, call.url(), status=call.status, json=wrong)
    why = call.fails(502)
    assert f"{name}: Input should be a valid string" in why
    assert "id: Field required" in why


anything = st.none() | st.text() | st.integers() | st.lists(st.text())
problems = st.lists(st.fixed_dictionaries({"msg": anything, "type": anything, "loc": anything}))
bodies = st.recursive(
    anything | problems | st.fixed_dictionaries({"detail": problems}),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@each(CALLS)
@calls.steady
@given(status=st.integers(200, 599), body=st.binary() | bodies.map(json.dumps))
def test_any_other_answer_is_an_http_exception(call, status, body):
    if (call.method, status) == ("DELETE", 204):
        return
    with responses.RequestsMock() as mock:
        mock.add(call.method, call.url(), status=status, body=body)
        with pytest.raises(exam_requests.HTTPException) as raised:
            call()
    hidden = {404} if call.method == "GET" and status in {400, 422} else set()
    assert raised.value.status_code in hidden | {status if 400 <= status < 500 else 502}


# What a detail says.


def test_a_detail_is_one_line_of_a_readable_length():
    forged = "Busy.\r\n2026 ERROR \x1b[31mforged\u2028line\u200f,\u200bagain"
    why = answered(SET_RESULT, 409, {"detail": forged})
    assert why == "Busy. 2026 ERROR [31mforged line , again"
    assert answered(SET_RESULT, 409, {"detail": "7" * 2**20}) == "7" * 500


@each(CALLS)
def test_a_token_that_comes_back_in_a_detail_is_removed(call):
    assert answered(call, 401, {"detail": f"Unknown: {TOKEN}, {TOKEN}"}) == "Unknown: ..., ..."


@pytest.mark.parametrize(("token", "why"), [("token", "Invalid token."), ("i" * 16, "Invalid ...")])
def test_a_token_too_short_to_be_a_secret_leaves_other_words_alone(mock, token, why):
    mock.get(GET_TASK.url(), status=401, json={"detail": why.replace("...", token)})
    assert GET_TASK.fails(401, token=token) == why


# What the log says.


@each(CALLS)
def test_a_call_logs_one_debug_record(mock, call, caplog):
    caplog.set_level(logging.DEBUG)
    mock.add(call.method, call.url(), status=call.status, json=call.answer)
    call()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("exam_requests", "DEBUG")
    assert record.message.startswith(f"{call.method} {call.url()}: {call.status} in ")
    assert record.message.endswith(" ms")


def test_the_time_of_a_call_is_logged_in_milliseconds(mock, caplog):
    body = json.dumps(GET_TASK.answer)
    mock.add_callback("GET", GET_TASK.url(), lambda _: time.sleep(0.05) or (200, {}, body))
    started = time.monotonic()
    GET_TASK()
    elapsed = (time.monotonic() - started) * 1000
    assert 49 < float(caplog.records[0].message.split()[-2]) < elapsed + 0.1


@each(CALLS)
@pytest.mark.parametrize(("status", "raised", "level"), [(409, 409, "INFO"), (500, 502, "WARNING")])
def test_a_failed_call_logs_one_more_record_with_its_detail(call, status, raised, level, caplog):
    why = answered(call, status, {"detail": "Busy."}, raised)
    debug, record = caplog.records
    assert debug.message.startswith(f"{call.method} {call.url()}: {status} in ")
    assert record.levelname == level
    assert record.message == f"{call.method} {call.url()}: {raised} {call.what}: {why}"


@pytest.mark.parametrize(
    ("arguments", "came"),
    [({"record_id": "a/b"}, "/task/: not sent in "), ({}, f"{GET_TASK.record_id}: no answer in ")],
)
def test_the_log_says_why_there_is_no_status(arguments, came, caplog):
    with responses.RequestsMock():
        GET_TASK.fails(404 if arguments else 503, **arguments)
    assert came in caplog.records[0].message


# Mocks in a caller's tests.


@pytest.mark.parametrize(
    ("record_id", "matcher", "mismatch"),
    [
        ("other", matchers.query_param_matcher({}), "/result/other URL does not match"),
        (None, matchers.query_param_matcher({"a": "b"}), "Parameters do not match."),
        (None, matchers.header_matcher({"Accept": "text/html"}), "Headers do not match"),
        (None, matchers.json_params_matcher({}), "request.body doesn't match"),
    ],
)
def test_a_mock_that_does_not_match_says_so(mock, record_id, matcher, mismatch):
    mock.put(SET_RESULT.url(record_id), match=[matcher])
    mock.assert_all_requests_are_fired = False
    with pytest.raises(exam_requests.HTTPException, match=mismatch) as raised:
        SET_RESULT(payload=exam_requests.SetResult(**calls.MRD))
    refused = "Connection refused by Responses - the call doesn't match any registered mock."
    assert f"Error updating result: {calls.UNCONNECTED}{refused}" in raised.value.detail
    assert raised.value.status_code == 503
    assert len(mock.calls) == 1


def test_callers_can_mock_with_requests_mock():
    with requests_mock.Mocker() as mock:
        for call in CALLS:
            mock.request(call.method, call.url(), status_code=call.status, json=call.answer)
            call()
        assert [request.method for request in mock.request_history] == [c.method for c in CALLS]


@each(CALLS)
@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (requests.ConnectionError(), 503, f"{calls.UNCONNECTED}ConnectionError"),
        (requests.ConnectionError("the cable is out"), 503, f"{calls.UNCONNECTED}the cable is out"),
        (requests.exceptions.SSLError("not trusted"), 503, f"{calls.UNCONNECTED}not trusted"),
        (OSError("the cable is out"), 503, f"{calls.UNCONNECTED}the cable is out"),
        (requests.ConnectTimeout("slow"), 504, f"no connection to the exam manager in {LIMIT}"),
        (requests.ReadTimeout("slow"), 504, f"the exam manager sent nothing for {LIMIT}"),
        (requests.Timeout("slow"), 504, f"the request could not be sent in {LIMIT}"),
        (
            requests.ConnectionError(TimeoutError()),
            504,
            f"the request could not be sent in {LIMIT}",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_mocked_failure_of_the_network_is_a_503_or_504(mock, call, error, status, why):
    mock.add(call.method, call.url(), body=error)
    assert call.fails(status) == why
    assert len(mock.calls) == 1
