"""What goes out: the documented request, with the id and the token in their places."""

import json
import string
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import CALLS, GET_TASK, TASK_ID, TOKEN, each, reproducible


@each(CALLS)
def test_a_call_sends_the_documented_request_and_returns_the_record(mock, call):
    mock.add(call.method, call.url(), status=call.status, json=call.answer)
    call.succeeds()
    sent = mock.calls[0].request
    headers = {"Accept": "application/json", "Authorization": f"Bearer {TOKEN}"}
    if call.payload:
        assert json.loads(sent.body) == call.payload().model_dump(mode="json")
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(sent.body))}
    else:
        assert sent.body is None
    if call.method in {"POST", "DELETE"}:
        headers |= {"Connection": "close"}
    assert sent.headers == headers
    assert sent.req_kwargs["timeout"] == 3


def head(server):
    """Take the lines of the head of the one request that has arrived."""
    (request,) = server.requests
    server.requests.clear()
    return request.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_the_head_asks_for_no_encoding_and_has_a_token_of_all_that_rfc_6750_allows(server):
    token = string.ascii_letters + string.digits + "-._~+/=="
    GET_TASK(token=token)
    assert {"Accept-Encoding: identity", f"Authorization: Bearer {token}"} < set(head(server))


def test_a_uuid_object_can_be_an_id(server):
    GET_TASK(UUID(TASK_ID))
    assert head(server)[0] == f"GET /api/v1/exam/task/{TASK_ID} HTTP/1.1"


HOSTILE_IDS = [
    *("..\\x", "...", "%2e%2e", "%2F", "?a=b", "#a", "&task_id=x", "@host", ":80", ";", "+", "~"),
    *(" ", "%", "é", "\u2028", "a" * 128, "\N{FULLWIDTH FULL STOP}" * 2),
]
sendable = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/")
ids = st.text(sendable, min_size=1, max_size=128).filter(lambda text: text not in {".", ".."})


@each(CALLS)
@reproducible
@given(record_id=st.sampled_from(HOSTILE_IDS) | ids)
def test_an_id_is_sent_as_one_segment_or_value(server, call, record_id):
    call(record_id)
    method, target, version = head(server)[0].split(" ")
    segment = target.removeprefix("/api/v1/exam" + call.path)
    assert (method, version) == (call.method, "HTTP/1.1")
    assert unquote(segment, errors="strict") == record_id
    assert not set("/?#&=+") & set(segment)


INVALID_IDS = {
    "the id is empty": [""],
    "the id is '.'": ["."],
    "the id is '..'": [".."],
    "the id contains a /": ["/", "a/b", f"../{TASK_ID}", "..%2F/", "http://host/"],
    "the id contains a character that cannot be sent": [
        *("\x00", "a\nb", "\r\nX: y", "\x1f", "\x7f", "\x9f", "\ud800", "\udfff"),
    ],
    "the id has more than 128 characters": ["a" * 129, TOKEN],
    "the id is of type NoneType, not str": [None],
}
INVALID_TOKENS = {
    "the access token is not a bearer token": [
        *("", "a b", "a\n", "a\r\nX: y", "\x00", "é", "\ud800", "=", "a=b", "Bearer a", "a,b", "¹"),
    ],
    "the access token is of type NoneType, not str": [None],
    "the access token is of type bytes, not str": [TOKEN.encode()],
}


@each(CALLS)
@pytest.mark.parametrize("why", INVALID_IDS)
def test_an_invalid_id_is_a_404_that_says_why_and_is_not_sent(server, call, why):
    for record_id in INVALID_IDS[why]:
        assert call.fails(404, record_id=record_id) == why
    assert not server.requests


@each(CALLS)
@pytest.mark.parametrize("why", INVALID_TOKENS)
def test_an_invalid_token_is_a_401_that_says_why_and_is_not_sent(server, call, why):
    for token in INVALID_TOKENS[why]:
        assert call.fails(401, token=token) == why
    assert not server.requests
