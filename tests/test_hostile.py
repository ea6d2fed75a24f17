"""What comes from devices, handlers and the other side is hostile; nothing of it goes astray."""

import itertools
import json
import math
import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from unittest.mock import MagicMock, Mock
from urllib.parse import unquote
from uuid import UUID

import pytest
from fastapi import HTTPException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    Field,
    RootModel,
    SecretStr,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

import exam_requests
from calls import (
    CALLS,
    GET_SEQUENCE,
    GET_TASK,
    PAYLOAD_VALUE,
    PUTS,
    SET_RESULT,
    SET_TASK,
    TASK_ID,
    TOKEN,
    Call,
    called,
    each,
    result_payload,
    task_payload,
)
from sockets import Server, answer, close

anything = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
unicode = st.text(st.characters(exclude_categories=()))


def reply(connection: socket.socket, request: bytes) -> None:
    """Answer each call as documented."""
    call = called(request)
    connection.sendall(answer(call.status, call.answer))


@pytest.fixture
def server(serve: Callable[..., Server]) -> Iterator[Server]:
    """Run a server that answers each call as documented."""
    return serve(reply)


def heads(server: Server) -> list[list[str]]:
    """Take the heads of the requests that have arrived, a list of lines each."""
    arrived = [
        request.partition(b"\r\n\r\n")[0].decode().split("\r\n") for request in server.requests
    ]
    server.requests.clear()
    return arrived


IDS = [
    *(
        "",
        ".",
        "..",
        "../" + TASK_ID,
        "..\\x",
        "%2e%2e",
        "%2e%2e%2f",
        "a/b",
        "/",
        "//host",
        "@host",
    ),
    *(
        "?a=b",
        "#a",
        "&task_id=x",
        " ",
        "\x00",
        "\r\nX: y",
        "\n",
        "é",
        "\u2028",
        "\ud800",
        "a" * 4096,
    ),
    *("a" * 4097, "/" * 10**7),
    *(
        "task",
        "..;",
        "~",
        "+",
        "%",
        "%00",
        ";",
        ":80",
        "http://host/",
        "\N{FULLWIDTH FULL STOP}" * 2,
    ),
]


@each(CALLS)
@anything
@given(record_id=st.sampled_from(IDS) | unicode)
def test_an_id_is_one_segment_or_nothing_is_sent(
    server: Server, call: Call, record_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        record_id.encode()
        nameless = record_id in {"", ".", ".."} or len(record_id) > 4096
    except UnicodeEncodeError:
        nameless = True
    if nameless:
        noun = "Task" if "task" in call.function else "Sequence"
        what = f"{noun} not found" if call.method == "GET" else call.what
        assert call.fails(caplog, 404, record_id=record_id) == f"{what}: the id names nothing"
        assert not server.requests
        return
    call(record_id)
    ((line, host, *headers),) = heads(server)
    method, target, version = line.split(" ")
    segment = target.removeprefix("/api/v1/exam" + call.path)
    assert (method, version) == (call.method, "HTTP/1.1")
    assert unquote(segment, errors="strict") == record_id
    assert not set("/?#&=+") & set(segment)
    assert host == f"Host: {server.url.removeprefix('http://')}"
    assert {header.split(":")[0].lower() for header in headers} <= {
        *("accept", "accept-encoding", "authorization", "connection", "user-agent"),
        *("content-length", "content-type"),
    }


TOKENS = ["", " ", "a b", "a\n", "a\r\nX: y", "\x00", "é", "\ud800", "=", "a=b", "Bearer a", "a,b"]


@each(CALLS)
@pytest.mark.parametrize("token", [*TOKENS, "\N{DIGIT ONE}\N{SUPERSCRIPT ONE}", None, 5, b"a"])
def test_a_token_that_is_none_is_a_401_and_not_sent(
    server: Server, call: Call, token: Any, caplog: pytest.LogCaptureFixture
) -> None:
    detail = call.fails(caplog, 401, token=token)
    assert detail == f"{call.what}: the access token is not a bearer token"
    assert not server.requests


@each(CALLS)
@anything
@given(token=st.from_regex(r"[A-Za-z0-9\-._~+/]+=*", fullmatch=True) | unicode)
def test_a_token_never_leaves_its_place(
    server: Server, call: Call, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        call(token=token)
    except HTTPException as error:
        assert error.status_code == 401
        assert not server.requests
    else:
        ((line, *headers),) = heads(server)
        assert line == f"{call.method} {call.url()[24:]} HTTP/1.1"
        assert headers.count(f"Authorization: Bearer {token}") == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # What UTF-8 can hold: all but the surrogates.
    | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@anything
@given(meta=st.dictionaries(st.text(), json_values))
def test_what_is_sent_is_the_payload(server: Server, meta: dict[str, Any]) -> None:
    payload = result_payload()
    payload.meta = meta
    payload.files = list(meta)
    SET_RESULT(payload=payload)
    sent = json.loads(server.requests.pop().partition(b"\r\n\r\n")[2])
    assert sent == {"type": "MRD", "directory": PAYLOAD_VALUE, "files": list(meta), "meta": meta}


circle: list[Any] = []
circle.append(circle)
shared: list[Any] = []
for _ in range(100):  # Each holds the one before twice: 2 to the power of 100 values in all.
    shared = [shared, shared]


class NotANumber(Enum):
    """An enumeration whose value JSON cannot hold."""

    VALUE = math.nan


NOT_JSON = [
    *(math.nan, math.inf, -math.inf, object(), object, b"\xff", "\ud800", 10**5000, {object()}),
    *(lambda: None, circle, UUID, {"\ud800": 1}, {1: "one", "1": "another"}, ValueError("x")),
    *({1, 2}, {None: 1}, {math.nan: 1}, {(1,): 1}, {b"a": 1}, MagicMock(), SecretStr("secret")),
    *(Decimal("NaN"), complex(math.nan, 1), NotANumber.VALUE),
]


@anything
@given(
    value=st.sampled_from(NOT_JSON),
    path=st.lists(st.sampled_from([[], {}, ()]), max_size=5),
)
@example(value="deep", path=[[]] * 300)
@example(value="deeper", path=[{}] * 30_000)
def test_what_json_cannot_hold_is_a_422_that_names_the_field(
    server: Server, value: Any, path: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    for container in path:
        value = {"key": value} if container == {} else type(container)([value])
    payload = result_payload()
    payload.meta = {"first": 1, "second": value}
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: meta: JSON cannot hold the value"
    assert not server.requests


@pytest.mark.parametrize("value", NOT_JSON, ids=lambda value: type(value).__name__)
def test_a_field_that_the_model_does_not_know_is_checked_as_well(
    server: Server, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = task_payload()
    payload.later = {"nested": [value]}
    detail = SET_TASK.fails(caplog, 422, payload=payload)
    assert detail == "Error updating task: later: JSON cannot hold the value"
    assert not server.requests


def nothing(_: Any) -> Any:
    """Show nothing of what a container holds."""
    return iter(())


@pytest.mark.parametrize(
    ("kind", "held"), [(list, [math.nan]), (tuple, [math.nan]), (dict, {"a": math.nan})]
)
def test_what_a_container_does_not_show_is_checked_as_well(
    server: Server, kind: type, held: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    payload.meta = {"a": type("Empty", (kind,), {"__iter__": nothing, "items": nothing})(held)}
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: meta: JSON cannot hold the value"
    assert not server.requests


class Numbers(RootModel[list[int]]):
    """A model that is read as the list that it holds."""

    def __iter__(self) -> Any:
        return iter(self.root)


def test_a_model_that_is_read_as_something_else_is_sent(server: Server) -> None:
    payload = result_payload()
    payload.meta = {"a": Numbers([1, 2])}
    SET_RESULT(payload=payload)
    assert server.requests[0].endswith(b'"meta":{"a":[1,2]}}')


class Trap(dict[str, Any]):
    """An object that raises when it is read."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(PAYLOAD_VALUE)

    keys = values = items = __len__ = __int__ = __str__ = __iter__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progress", "abc"),
        ("progress", None),
        ("progress", 4.5),
        ("progress", math.nan),
        ("progress", Trap()),
        ("name", None),
        ("name", b"\xff"),
        ("name", "\ud800"),
        ("status", "LOST"),
        ("task_type", None),
        ("device_id", PAYLOAD_VALUE),
        ("calibration", ["shims", "nose"]),
        ("acquisition_parameter", {"fov_scaling": 5}),
        ("acquisition_limits", object()),
        ("results", [PAYLOAD_VALUE]),
        ("results", None),
        ("datetime_created", "yesterday"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_field_that_was_assigned_what_it_cannot_be_is_a_422_that_names_it(
    server: Server, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = task_payload()
    setattr(payload, field, value)
    detail = SET_TASK.fails(caplog, 422, payload=payload)
    assert detail.startswith(f"Error updating task: {field}")
    assert not server.requests


def test_the_values_that_a_field_may_have_are_named(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    payload.type = "LOST"  # type: ignore[assignment]
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail.endswith(
        "type: Input should be 'DICOM', 'MRD', 'NUMPY', 'CALIBRATION' or 'NOT_SET'"
    )


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (math.nan, "JSON cannot hold the value"),
        (math.inf, "JSON cannot hold the value"),
        ("abc", "Input should be a valid number"),
        (None, "Input should be a valid number"),
    ],
)
def test_a_nested_field_is_checked_as_well(
    server: Server, x: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    payload = task_payload()
    payload.acquisition_parameter.fov_scaling.x = x
    detail = SET_TASK.fails(caplog, 422, payload=payload)
    assert detail == f"Error updating task: acquisition_parameter.fov_scaling.x: {why}"
    assert not server.requests


@pytest.mark.parametrize("field", ["files", "meta", "later"])
@pytest.mark.parametrize(
    "endless", [itertools.count, lambda: map(str, itertools.count()), MagicMock]
)
def test_a_value_without_an_end_is_a_422(
    server: Server, field: str, endless: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    setattr(payload, field, endless())
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == f"Error updating result: {field}: JSON cannot hold the value"
    assert not server.requests


def test_so_much_is_sent_and_no_more(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    payload.meta = {"a": [1, None, {"b": (2,)}]}
    values = ["type", "MRD", "/", "files", "a.mrd", "meta", "a", 1, None, "b", "()", 2]
    texts = "MRD" + PAYLOAD_VALUE + "a.mrd" + "a" + "1" + "b" + "2"
    size = len(values) * exam_requests._VALUE_BYTES + len(texts)
    monkeypatch.setattr(exam_requests, "_RECORD_BYTES", size)
    SET_RESULT(payload=payload)
    assert len(server.requests) == 1
    monkeypatch.setattr(exam_requests, "_RECORD_BYTES", size - 1)
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: meta: the value is too large"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "value",
    [shared, [None] * 210_000, ["7" * 10**6] * 10_000, [10**4000] * 10_000, "7" * 2**23],
    ids=["doubled", "many", "long texts", "long numbers", "one text"],
)
def test_a_value_that_is_too_large_is_a_422(
    server: Server, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    payload.meta = {"a": value}
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: meta: the value is too large"
    assert not server.requests


@pytest.mark.parametrize("container", [list, dict, "model"])
def test_a_value_may_be_so_deep_and_no_deeper(
    server: Server, container: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def payload(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth - 1):
            value = {"a": value} if container is dict else [value]
        if container == "model":
            nested = exam_requests.SetResult(type="MRD", directory="/d")
            nested.later = value[0]
            value = nested
        payload = task_payload()
        payload.later = value
        return payload

    SET_TASK(payload=payload(exam_requests._DEPTH))
    assert len(server.requests) == 1
    detail = SET_TASK.fails(caplog, 422, payload=payload(exam_requests._DEPTH + 1))
    assert detail.startswith("Error updating task: later")
    assert detail.endswith(": JSON cannot hold the value")
    assert len(server.requests) == 1


@each(PUTS)
def test_a_field_that_is_missing_is_a_422(
    server: Server, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    payload = call.payload().model_construct()
    assert "Field required" in call.fails(caplog, 422, payload=payload)
    assert not server.requests


class Masked:
    """An object that does not say what it is."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError(PAYLOAD_VALUE)


@each(PUTS)
@pytest.mark.parametrize(
    "make",
    [type(None), dict, str, object, Masked, lambda: Mock(spec=exam_requests.SetResult)],
)
def test_a_payload_that_is_no_model_is_a_422(
    server: Server, call: Call, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    detail = call.fails(caplog, 422, payload=make())
    model = type(call.payload()).__name__
    assert detail == f"{call.what}: the payload is not of type {model}"
    assert not server.requests


def test_a_value_that_means_the_same_is_taken(server: Server) -> None:
    payload = task_payload()
    payload.status, payload.progress, payload.device_id = "FINISHED", "100", TASK_ID
    SET_TASK(payload=payload)
    sent = json.loads(server.requests.pop().partition(b"\r\n\r\n")[2])
    assert (sent["status"], sent["progress"], sent["device_id"]) == ("FINISHED", 100, TASK_ID)


def test_a_payload_that_cannot_be_read_is_a_422(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Unreadable(exam_requests.SetResult):
        @model_serializer
        def refuse(self) -> Any:
            raise RuntimeError(PAYLOAD_VALUE)

    unreadable = Unreadable.model_construct(type="MRD", directory="/d")
    blank = exam_requests.SetResult.__new__(exam_requests.SetResult)
    for payload in (unreadable, blank):
        detail = SET_RESULT.fails(caplog, 422, payload=payload)
        assert detail == "Error updating result: payload: JSON cannot hold the value"
    assert not server.requests


class Encoded:
    """A key that is not text, although it can be encoded."""

    encode = PAYLOAD_VALUE.encode
    __repr__ = PAYLOAD_VALUE.__str__


@pytest.mark.parametrize(
    "key",
    [(PAYLOAD_VALUE,), PAYLOAD_VALUE.encode() + b"\xff", 19700101, Encoded()],
    ids=lambda key: type(key).__name__,
)
def test_a_key_that_is_no_text_is_not_quoted(
    server: Server, key: Any, caplog: pytest.LogCaptureFixture
) -> None:
    payload = result_payload()
    payload.meta = {key: 1}
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: meta: JSON cannot hold the value"
    assert not server.requests


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueError(PAYLOAD_VALUE), "directory: Value error"),
        (PydanticCustomError("mine", PAYLOAD_VALUE), "directory"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_a_validator_says_of_a_value_is_not_quoted(
    server: Server, error: Exception, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict(exam_requests.SetResult):
        @field_validator("directory")
        @classmethod
        def refuse(cls, value: str) -> str:
            raise error

    payload = Strict.model_construct(**result_payload().model_dump())
    assert SET_RESULT.fails(caplog, 422, payload=payload) == f"Error updating result: {why}"


class Phantom(BaseModel):
    """One kind of a union."""

    kind: Literal["phantom", "water"]


class Volunteer(BaseModel):
    """Another kind of a union."""

    kind: Literal["volunteer"]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        (
            "subject",
            {"kind": f"a found using b, {PAYLOAD_VALUE}"},
            "'kind' does not match any of the expected tags: 'phantom', 'water', 'volunteer'",
        ),
        ("coil", PAYLOAD_VALUE, "Input should be 'head', 'body' or 'knee'"),
    ],
)
def test_a_choice_is_named_and_not_what_was_chosen_instead(
    server: Server, field: str, value: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Chosen(exam_requests.SetResult):
        subject: Phantom | Volunteer = Field(Volunteer(kind="volunteer"), discriminator="kind")
        coil: Literal["head", "body", "knee"] = "head"

    payload = Chosen.model_construct(**result_payload().model_dump(), **{field: value})
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == f"Error updating result: {field}: {why}"


def test_a_payload_whose_fields_are_well_but_not_the_whole_is_a_422(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Whole(exam_requests.SetResult):
        @model_validator(mode="after")
        def refuse(self) -> Any:
            raise RuntimeError(PAYLOAD_VALUE)

    payload = Whole.model_construct(**result_payload().model_dump())
    detail = SET_RESULT.fails(caplog, 422, payload=payload)
    assert detail == "Error updating result: payload: JSON cannot hold the value"


def test_a_subclass_of_str_is_sent_as_the_text_that_it_is(server: Server) -> None:
    class Text(str, Enum):
        ABC = "abc"

    GET_TASK(Text.ABC, token=Text.ABC)
    ((line, *headers),) = heads(server)
    assert line == "GET /api/v1/exam/task/abc HTTP/1.1"
    assert "Authorization: Bearer abc" in headers


class Shy(str):
    """A text that is none by all that it says of itself."""

    def __len__(self) -> int:
        return 0

    def encode(self, *_: Any) -> Any:
        raise RuntimeError(PAYLOAD_VALUE)

    __str__ = __format__ = encode  # type: ignore[assignment]


@each(CALLS)
def test_a_text_that_shows_itself_otherwise_stays_in_its_place(server: Server, call: Call) -> None:
    call(Shy("../exam/7"), token=Shy("abc"))
    ((line, *headers),) = heads(server)
    assert line == f"{call.method} {call.url('..%2Fexam%2F7')[24:]} HTTP/1.1"
    assert "Authorization: Bearer abc" in headers


def test_a_mock_of_a_token_is_a_401(server: Server) -> None:
    with pytest.raises(HTTPException) as raised:
        GET_TASK(token=Mock(spec=str))
    assert raised.value.status_code == 401
    assert not server.requests


def outcome(call: Call) -> Any:
    """Make a call: the model, or an `HTTPException` of the gateway's or the caller's kind."""
    try:
        return call()
    except HTTPException as error:
        assert 400 <= error.status_code <= 504
        return error


@each(CALLS)
@anything
@given(
    status=st.integers(200, 599),
    body=st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
)
def test_any_status_with_any_body_is_a_model_or_an_http_exception(
    serve: Callable[..., Server], call: Call, status: int, body: bytes
) -> None:
    head = f"HTTP/1.1 {status} R\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with_server(serve, call, head + body)


@each(CALLS)
@anything
@given(data=st.data())
def test_any_bytes_are_a_model_or_an_http_exception(
    serve: Callable[..., Server], call: Call, data: st.DataObject
) -> None:
    whole = answer(call.status, call.answer, "Content-Type: application/json", "X: y")
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 20))
    with_server(serve, call, whole[:at] + data.draw(st.binary()) + whole[at + cut :])


def with_server(serve: Callable[..., Server], call: Call, wire: bytes) -> None:
    """Answer a call with these bytes and nothing more."""

    def send(connection: socket.socket, _: bytes) -> None:
        connection.sendall(wire)
        close(connection)

    server = serve(send)
    got = outcome(call)
    documented = call.answer is None or isinstance(got, HTTPException)
    assert documented or type(got).__name__ in {"AcquisitionTaskOut", "MRISequenceOut", "ResultOut"}
    assert len(server.requests) <= (2 if call.method in {"GET", "PUT"} else 1)


@pytest.mark.parametrize("text", ["1,2,[3],{4}\n", '\\"'], ids=["numbers", "escapes"])
def test_a_file_may_hold_what_separates_values(serve: Callable[..., Server], text: str) -> None:
    server = serve(lambda connection, _: connection.sendall(answer(200, held)))
    held = {**GET_SEQUENCE.answer, "seq_file": text * 300_000}
    assert GET_SEQUENCE().seq_file == text * 300_000
    assert len(server.requests) == 1


def test_a_text_without_an_end_is_a_502(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"seq_file": "' + b'\\",' * 300_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    serve(lambda connection, _: connection.sendall(head + body))
    assert GET_SEQUENCE.fails(caplog, 502).endswith("the exam manager's answer is not JSON")


@each(CALLS)
@pytest.mark.parametrize("record_id", [None, 5, ["a"]], ids=repr)
def test_what_is_no_id_is_a_404_and_not_sent(
    server: Server, call: Call, record_id: Any, caplog: pytest.LogCaptureFixture
) -> None:
    call.fails(caplog, 404, record_id=record_id)
    assert not server.requests


@each(CALLS)
def test_what_follows_an_answer_is_not_taken_for_the_next_one(
    serve: Callable[..., Server], call: Call
) -> None:
    def send(connection: socket.socket, request: bytes) -> None:
        documented = answer(called(request).status, called(request).answer)
        connection.sendall(documented + answer(200, {"name": TOKEN}))

    serve(send)
    assert call() == call() == call()
