"""What a caller gets for each answer of the exam manager, and what stands in the log."""

import json
import logging
import re

import pytest
import requests
import requests_mock
import responses
from hypothesis import given
from hypothesis import strategies as st
from responses import matchers

import exam_requests
from calls import CALLS, GET_TASK, PAYLOAD_VALUE, RECORDS, SET_RESULT, SET_TASK, TOKEN, each, task
from test_requests import anything

UNANSWERED = "no connection to the exam manager: "
ANSWERED = "the exam manager, or a proxy before it, answered"


def answered(call, status, body, raised=None):
    """Make the call, which is to fail with the status that came or another; return why it did."""
    with responses.RequestsMock() as mock:
        content = {"body": body} if isinstance(body, (str, bytes)) else {"json": body}
        mock.add(call.method, call.url(), status=status, **content)
        return call.fails(raised or status)


# What the exam manager refuses.


@each(CALLS)
@pytest.mark.parametrize("status", [401, 403, 404, 405, 409, 418, 429, 499])
def test_a_refusal_has_the_status_and_the_detail_of_the_exam_manager(call, status):
    assert answered(call, status, {"detail": "Not like this."}) == "Not like this."


@each(CALLS)
@pytest.mark.parametrize("status", [400, 422])
def test_to_a_get_an_id_that_cannot_be_is_not_found(call, status):
    raised = 404 if call.method == "GET" else status
    assert answered(call, status, {"detail": "No such id."}, raised) == "No such id."


PAGES = ["", "<html>Bad Request</html>", "[]", "null", '"detail"', "{}", '{"detail": null}']


@each(CALLS)
@pytest.mark.parametrize("status", [400, 401, 404])
@pytest.mark.parametrize("body", [*PAGES, '{"detail": ""}', '{"detail": [{"msg": "m"}]}', b"\xff"])
def test_a_refusal_without_a_detail_keeps_its_status_and_says_so(call, status, body):
    why = answered(call, status, body)
    assert why == f"{ANSWERED} {status} without a detail"


@each(CALLS)
def test_any_other_status_is_a_502_that_names_it(call):
    undocumented = {100, 102, 200, 201, 202, 204, 206, 299, 300, 302, 304, 307, 399, 500, 503, 599}
    for status in undocumented - {call.status}:
        why = answered(call, status, call.answer or {"detail": "no"}, 502)
        assert why == f"{ANSWERED} {status}"


def test_a_list_of_problems_becomes_field_and_message_without_values():
    choices = "Input should be 'MRD', 'NUMPY' or 'NOT_SET'"
    problems = [
        {"type": "enum", "loc": ["body", "type"], "msg": choices, "input": PAYLOAD_VALUE},
        {"type": "int", "loc": ["body", "files", 3], "msg": f"Not that, {PAYLOAD_VALUE}"},
        {"type": "missing", "loc": ["body"], "msg": "Field required"},
    ]
    why = answered(SET_RESULT, 422, {"detail": problems})
    assert why == f"type: {choices}; files.3: Not that; Field required"


# What it answers instead of the record.


@pytest.mark.parametrize("task_type", ["DAG", "RECONSTRUCTION", "PROCESSING", "LATER", 5, None])
@pytest.mark.parametrize(("call", "status"), [(GET_TASK, 400), (SET_TASK, 502)])
def test_a_task_of_another_type_is_a_400_of_get_task_and_a_502_of_set_task(
    mock, call, status, task_type
):
    mock.add(call.method, call.url(), json=task(task_type=task_type))
    assert call.fails(status) == "it is not an acquisition task"


NOT_JSON = [
    *("", "<html></html>", '{"name": "\\ud800"}', '{"name": "abc', b'{"name": "\xff"}'),
    *('{"name": ' + "[" * 100_000, b"\x1f\x8b\x08"),
]


@each(RECORDS)
@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_body_that_is_not_json_is_a_502(call, body):
    with responses.RequestsMock() as mock:
        mock.add(call.method, call.url(), status=call.status, body=body)
        assert re.match("the answer is not a valid [A-Z]\\w+: Invalid JSON: ", call.fails(502))


@each(RECORDS)
@pytest.mark.parametrize("body", ["{}", "[]", "null", "7"])
def test_a_body_that_is_not_the_record_is_a_502_that_names_the_model(mock, call, body):
    mock.add(call.method, call.url(), status=call.status, body=body)
    assert call.fails(502).startswith("the answer is not a valid ")


@each(RECORDS)
def test_the_fields_that_are_wrong_are_named(mock, call):
    name = "directory" if "directory" in call.answer else "name"
    wrong = {key: value for key, value in call.answer.items() if "id" not in key} | {name: 5}
    mock.add(call.method, call.url(), status=call.status, json=wrong)
    why = call.fails(502)
    assert f"{name}: Input should be a valid string" in why
    assert "id: Field required" in why


@each(CALLS)
@anything
@given(
    status=st.integers(200, 599),
    body=st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps),
)
def test_any_status_with_any_body_is_a_model_or_an_http_exception(call, status, body):
    if (call.method, status) == ("DELETE", 204):
        return
    with responses.RequestsMock() as mock:
        mock.add(call.method, call.url(), status=status, body=body)
        call.fails(status if 400 <= status < 500 else 502)


# What a detail says.


def test_a_detail_is_one_line_of_a_readable_length():
    forged = "Busy.\r\n2026 ERROR \x1b[31mforged\u2028line"
    assert answered(SET_RESULT, 409, {"detail": forged}) == ("Busy. 2026 ERROR [31mforged line")
    assert answered(SET_RESULT, 409, {"detail": "7" * 2**20}) == "7" * 500


@each(CALLS)
def test_a_token_that_comes_back_in_a_detail_is_taken_out(call):
    assert answered(call, 401, {"detail": f"Unknown: {TOKEN}"}) == "Unknown: ..."


@pytest.mark.parametrize(("token", "why"), [("token", "Invalid token."), ("i" * 16, "Invalid ...")])
def test_a_token_too_short_to_be_a_secret_leaves_other_words_alone(mock, token, why):
    mock.get(GET_TASK.url(), status=401, json={"detail": why.replace("...", token)})
    assert GET_TASK.fails(401, token=token) == why


# What the log says.


@each(CALLS)
def test_a_call_is_one_debug_record(mock, call, caplog):
    caplog.set_level(logging.DEBUG)
    mock.add(call.method, call.url(), status=call.status, json=call.answer)
    call()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("exam_requests", "DEBUG")
    assert record.message.startswith(f"{call.method} {call.url()}: {call.status} in ")
    assert 0 < float(record.message.split()[-2]) < 5000
    assert record.message.endswith(" ms")


@each(CALLS)
@pytest.mark.parametrize(("status", "raised", "level"), [(409, 409, "INFO"), (500, 502, "WARNING")])
def test_a_call_that_fails_is_one_more_record_with_its_detail(call, status, raised, level, caplog):
    why = answered(call, status, {"detail": "Busy."}, raised)
    debug, record = caplog.records
    assert debug.message.startswith(f"{call.method} {call.url()}: {status} in ")
    assert record.levelname == level
    assert record.message == f"{call.method} {call.url()}: {raised} {call.what}: {why}"


@pytest.mark.parametrize(
    ("arguments", "came"),
    [({"record_id": "a/b"}, "/task/: not sent in "), ({}, f"{GET_TASK.record_id}: no answer in ")],
)
def test_the_log_says_what_came_instead_of_a_status(arguments, came, caplog):
    with responses.RequestsMock():
        GET_TASK.fails(404 if arguments else 503, **arguments)
    assert came in caplog.records[0].message


# What the tests of a caller meet, who mocks.


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
        SET_RESULT()
    refused = "Connection refused by Responses - the call doesn't match any registered mock."
    assert f"Error updating result: {UNANSWERED}{refused}" in raised.value.detail
    assert raised.value.status_code == 503
    assert len(mock.calls) == 1


@each(RECORDS)
def test_a_mock_whose_status_and_body_do_not_go_together_is_judged_by_its_status(call):
    assert answered(call, 204, call.answer, 502) == f"{ANSWERED} 204"


def test_callers_may_mock_with_requests_mock():
    with requests_mock.Mocker() as mock:
        for call in CALLS:
            mock.request(call.method, call.url(), status_code=call.status, json=call.answer)
            call()
        assert [request.method for request in mock.request_history] == [c.method for c in CALLS]


@each(CALLS)
@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (requests.ConnectionError(), 503, f"{UNANSWERED}ConnectionError"),
        (requests.ConnectionError("the cable is out"), 503, f"{UNANSWERED}the cable is out"),
        (requests.exceptions.SSLError("not trusted"), 503, f"{UNANSWERED}not trusted"),
        (OSError("the cable is out"), 503, f"{UNANSWERED}the cable is out"),
        (requests.ConnectTimeout("slow"), 504, "no connection to the exam manager in 3 s"),
        (requests.ReadTimeout("slow"), 504, "the exam manager sent nothing for 6 s"),
        (requests.Timeout("slow"), 504, "the request was not taken in 3 s"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_mocked_failure_of_the_network_is_a_503_or_504(mock, call, error, status, why):
    mock.add(call.method, call.url(), body=error)
    assert call.fails(status) == why
    assert len(mock.calls) == 1
