"""What goes out: the documented request, with the id and the token in their places."""

import json
from decimal import Decimal
from urllib.parse import unquote
from uuid import UUID

import pytest
from fastapi.security import HTTPAuthorizationCredentials
from hypothesis import given
from hypothesis import strategies as st

from calls import CALLS, TASK_ID, TOKEN, each, steady

unicode = st.text(st.characters(exclude_categories=()))


def head(server):
    """Take the lines of the head of the one request that has arrived."""
    (request,) = server.requests
    server.requests.clear()
    return request.partition(b"\r\n\r\n")[0].decode().split("\r\n")


@each(CALLS)
def test_a_call_sends_the_documented_request_and_returns_the_record(mock, call):
    mock.add(call.method, call.url(), status=call.status, json=call.answer)
    got = call()
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
    assert (got and got.model_dump(mode="json", by_alias=True)) == call.answer


@each(CALLS)
def test_the_head_on_the_wire_names_the_host_and_asks_for_no_encoding(server, call):
    call()
    line, *headers = head(server)
    assert line == f"{call.method} {call.url()[24:]} HTTP/1.1"
    assert {f"Host: {server.url[7:]}", "Accept-Encoding: identity"} < set(headers)


@each(CALLS)
def test_a_uuid_object_can_be_an_id(mock, call):
    mock.add(call.method, call.url(TASK_ID), status=call.status, json=call.answer)
    call(UUID(TASK_ID))


NO_IDS = {
    "is empty": [""],
    "is '.'": ["."],
    "is '..'": [".."],
    "contains a /": ["/", "a/b", f"../{TASK_ID}", "..%2F/", "http://host/", "//host"],
    "contains a character that cannot be sent": [
        *("\x00", "a\nb", "\r\nX: y", "\x7f", "\x85", "\ud800"),
    ],
    "has more than 128 characters": ["a" * 129, TOKEN],
    "is of type NoneType, not str": [None],
    "is of type bytes, not str": [b"a"],
    "is of type decimal.Decimal, not str": [Decimal(5)],
}


@each(CALLS)
@pytest.mark.parametrize(
    ("record_id", "wrong"),
    [(record_id, wrong) for wrong, ids in NO_IDS.items() for record_id in ids],
    ids=ascii,
)
def test_an_invalid_id_is_a_404_that_says_why_and_is_not_sent(server, call, record_id, wrong):
    assert call.fails(404, record_id=record_id) == f"the id {wrong}"
    assert not server.requests


IDS = [
    *("..\\x", "...", "%2e%2e", "%2F", "?a=b", "#a", "&task_id=x", "@host", ":80", ";", "+", "~"),
    *(" ", "%", "é", "\u2028", "task", "a" * 128, "\N{FULLWIDTH FULL STOP}" * 2),
]


@each(CALLS)
@steady
@given(record_id=st.sampled_from(IDS) | unicode)
def test_an_id_is_sent_as_one_segment_or_value_or_not(server, call, record_id):
    codes = {ord(character) for character in record_id}
    controls = {*range(32), *range(127, 160), ord("/"), *range(0xD800, 0xE000)}
    if record_id in {"", ".", ".."} or len(record_id) > 128 or codes & controls:
        call.fails(404, record_id=record_id)
        assert not server.requests
        return
    call(record_id)
    method, target, version = head(server)[0].split(" ")
    segment = target.removeprefix("/api/v1/exam" + call.path)
    assert (method, version) == (call.method, "HTTP/1.1")
    assert unquote(segment, errors="strict") == record_id
    assert not set("/?#&=+") & set(segment)


TOKENS = ["", " ", "a b", "a\n", "a\r\nX: y", "\x00", "é", "\ud800", "=", "a=b", "Bearer a", "a,b"]


@each(CALLS)
@pytest.mark.parametrize("token", [*TOKENS, "\N{SUPERSCRIPT ONE}"], ids=ascii)
def test_an_invalid_token_is_a_401_and_not_sent(server, call, token):
    assert call.fails(401, token=token) == "the access token is not a bearer token"
    assert not server.requests


CREDENTIALS = HTTPAuthorizationCredentials(scheme="Bearer", credentials=TOKEN)


@each(CALLS)
@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (None, "NoneType"),
        (TOKEN.encode(), "bytes"),
        (CREDENTIALS, "fastapi.security.http.HTTPAuthorizationCredentials"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_token_that_is_no_str_is_a_401_that_names_its_type(server, call, token, kind):
    assert call.fails(401, token=token) == f"the access token is of type {kind}, not str"
    assert not server.requests


@each(CALLS)
@steady
@given(token=st.from_regex(r"\A[A-Za-z0-9\-._~+/]+=*\Z"))
def test_a_b64token_is_sent_in_the_header(server, call, token):
    call(token=token)
    line, *headers = head(server)
    assert line == f"{call.method} {call.url()[24:]} HTTP/1.1"
    assert headers.count(f"Authorization: Bearer {token}") == 1
