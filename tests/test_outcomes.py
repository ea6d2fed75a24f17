"""What a caller gets for each answer of the exam manager, and what stands in the log."""

import json
import time

import pytest
import requests
import requests_mock
import responses

import calls
import exam_requests
from calls import ANSWERED, CALLS, GET_TASK, PAYLOAD_VALUE, RECORDS, SET_RESULT, SET_TASK, each


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
def test_a_refusal_keeps_its_status_and_detail_but_a_get_of_an_invalid_id_is_a_404(call):
    for status in range(400, 500):
        raised = 404 if call.method == "GET" and status in {400, 422} else status
        assert answered(call, status, {"detail": "Not like this."}, raised) == "Not like this."


WITHOUT_A_DETAIL = [
    *("", "<html>Bad Request</html>", b"\xff", "[]", "null", '"detail"', "{}"),
    *('{"detail": null}', '{"detail": ""}', '{"detail": {"a": 1}}'),
    *('{"detail": [{"msg": "m"}]}', '{"detail": [{"msg": 5, "type": "x", "loc": []}]}'),
]


@each([GET_TASK, SET_RESULT])
@pytest.mark.parametrize("body", WITHOUT_A_DETAIL)
def test_a_refusal_without_a_detail_keeps_its_status_and_says_so(call, body):
    for status in (400, 401):
        assert answered(call, status, body) == f"{ANSWERED} {status} without a detail"


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("int_parsing", "Not an integer, unable to parse", "Not an integer, unable to parse"),
        ("enum", "Not 'MRD', 'NUMPY' or 'NOT_SET'", "Not 'MRD', 'NUMPY' or 'NOT_SET'"),
        ("value_error", f"Value error, no, {PAYLOAD_VALUE}", "Value error"),
        ("assertion_error", f"Assertion failed, {PAYLOAD_VALUE}", "Assertion failed"),
        ("uuid_parsing", "Input should be a valid UUID, found `n`", "Input should be a valid UUID"),
        ("union_tag_invalid", "Input tag 'a,\n'b'' found in c, d", "Input tag found in c, d"),
    ],
)
def test_a_list_of_problems_becomes_field_and_message_without_values(kind, message, shown):
    problem = {"type": kind, "msg": message, "input": PAYLOAD_VALUE}
    problems = [problem | {"loc": loc} for loc in (["body"], ["body", "files", 3])]
    assert answered(SET_RESULT, 422, {"detail": problems}) == f"{shown}; files.3: {shown}"


# What it answers instead of the record or a refusal.


@each(CALLS)
def test_an_undocumented_status_is_a_502_that_names_it(call):
    for status in {100, 102, *range(200, 400), *range(500, 600)} - {call.status}:
        why = answered(call, status, call.answer or {"detail": "no"}, 502)
        assert why == f"{ANSWERED} {status}"


@each(CALLS)
def test_a_500_says_if_the_id_is_malformed(call):
    kind = "an ObjectId" if "sequence" in call.path else "a UUID"
    for record_id, why in ((call.record_id.upper(), ""), ("task-1", f"; the id is not {kind}")):
        got = answered(call, 500, "Internal Server Error", 502, record_id=record_id)
        assert got == f"{ANSWERED} 500{why}"


@pytest.mark.parametrize(("call", "status"), [(GET_TASK, 400), (SET_TASK, 502)])
def test_another_type_of_task_is_a_400_from_get_task_and_a_502_from_set_task(call, status):
    for task_type in ("DAG", "LATER", 5, None):
        why = answered(call, 200, calls.task(task_type=task_type), status)
        assert why == "it is not an acquisition task"


NOT_JSON = ["", "<html></html>", '{"name": "\\ud800"}', '{"name": "abc', b'{"name": "\xff"}']


@each(RECORDS)
def test_a_body_that_is_not_json_is_a_502_that_names_no_model(call):
    for body in (*NOT_JSON, '{"name": ' + "[" * 100_000):
        assert answered(call, call.status, body, 502) == "the answer is not JSON"


@each(RECORDS)
def test_a_body_that_is_not_the_record_is_a_502_that_names_the_model_and_the_fields(call):
    model = getattr(exam_requests, call.function).__annotations__["return"]
    for body, problem in (("{}", "id: Field required"), ("[]", "Input should be a valid dict")):
        why = answered(call, call.status, body, 502)
        assert why.startswith(f"the answer is not a valid {model.__name__}: ")
        assert problem in why


# What a detail says.


def test_a_detail_is_one_line_of_a_readable_length():
    forged = "Busy.\r\n2026 ERROR \x1b[31mforged\u2028line\u200f,\u200bagain"
    why = answered(SET_RESULT, 409, {"detail": forged})
    assert why == "Busy. 2026 ERROR [31mforged line , again"
    assert answered(SET_RESULT, 409, {"detail": "7" * 2**20}) == "7" * 500


def test_a_token_that_comes_back_is_removed_unless_it_is_too_short_to_be_a_secret():
    for token, shown in ((calls.TOKEN, "..."), ("i" * 16, "..."), ("i" * 15, "i" * 15)):
        why = answered(GET_TASK, 401, {"detail": f"Invalid: {token}, {token}"}, token=token)
        assert why == f"Invalid: {shown}, {shown}"


# What the log says.


def test_a_call_logs_one_debug_record_with_its_milliseconds(mock, caplog):
    body = json.dumps(GET_TASK.answer)
    mock.add_callback("GET", GET_TASK.url(), lambda _: time.sleep(0.05) or (200, {}, body))
    started = time.monotonic()
    GET_TASK()
    elapsed = (time.monotonic() - started) * 1000
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("exam_requests", "DEBUG")
    *what, milliseconds, unit = record.message.split()
    assert (what, unit) == (["GET", f"{GET_TASK.url()}:", "200", "in"], "ms")
    assert 49 < float(milliseconds) < elapsed + 0.1


@pytest.mark.parametrize(("status", "raised", "level"), [(409, 409, "INFO"), (500, 502, "WARNING")])
def test_a_failed_call_logs_one_more_record_with_its_detail(status, raised, level, caplog):
    why = answered(SET_TASK, status, {"detail": "Busy."}, raised)
    debug, record = caplog.records
    assert debug.message.startswith(f"PUT {SET_TASK.url()}: {status} in ")
    assert record.levelname == level
    assert record.message == f"PUT {SET_TASK.url()}: {raised} Error updating task: {why}"


def test_the_log_says_why_there_is_no_status(mock, caplog):
    GET_TASK.fails(404, record_id="a/b")
    GET_TASK.fails(503)
    not_sent, _, no_answer, _ = [record.message for record in caplog.records]
    assert "/task/: not sent in " in not_sent
    assert f"{GET_TASK.url()}: no answer in " in no_answer


# Mocks in a caller's tests.


def test_a_mock_that_does_not_match_says_so(mock):
    mock.put(SET_RESULT.url("other"))
    mock.assert_all_requests_are_fired = False
    why = SET_RESULT.fails(503)
    assert why.startswith(f"{calls.UNCONNECTED}Connection refused by Responses - ")
    assert "/result/other URL does not match" in why


def test_callers_can_mock_with_requests_mock():
    with requests_mock.Mocker() as mock:
        for call in CALLS:
            mock.request(call.method, call.url(), status_code=call.status, json=call.answer)
            call()
        assert [request.method for request in mock.request_history] == [c.method for c in CALLS]


UNSENT = f"the request could not be sent in {calls.LIMIT}"
FAILURES = [
    (requests.ConnectionError(), 503, f"{calls.UNCONNECTED}ConnectionError"),
    (requests.ConnectionError("the cable is out"), 503, f"{calls.UNCONNECTED}the cable is out"),
    (requests.exceptions.SSLError("not trusted"), 503, f"{calls.UNCONNECTED}not trusted"),
    (requests.ConnectTimeout(), 504, f"no connection to the exam manager in {calls.LIMIT}"),
    (requests.ReadTimeout(), 504, f"the exam manager sent nothing for {calls.LIMIT}"),
    (requests.Timeout(), 504, UNSENT),
    (requests.ConnectionError(TimeoutError()), 504, UNSENT),
]


@each([GET_TASK, calls.CREATE_BLANK_RESULT])
@pytest.mark.parametrize(("error", "status", "why"), FAILURES)
def test_a_mocked_failure_of_the_network_is_a_503_or_504(mock, call, error, status, why):
    mock.add(call.method, call.url(), body=error)
    assert call.fails(status) == why
    assert len(mock.calls) == 1
