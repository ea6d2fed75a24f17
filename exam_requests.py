# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Handler for exam requests: the device manager's calls to the exam manager.

Six blocking functions fetch tasks and sequences and create, update and delete
results. Each takes the bearer token of the user on whose behalf it is called.
Whatever the arguments are, and whatever the exam manager or the network does, it
returns the documented model or raises `fastapi.HTTPException` within 10 s:

====== ======================================================================
status what happened
====== ======================================================================
400    `get_task`: the task is not an acquisition task
401    the token is no bearer token (not sent), or the exam manager refused it
403    the user may not do this
404    the id names nothing (not sent), or the record is not found;
       `get_task` and `get_sequence`: also the exam manager's 400 and 422
422    the payload is not valid for its model, JSON cannot hold it, or it is too
       large (not sent)
4xx    the exam manager refused for another reason: its status (400, 409, ...)
502    the exam manager failed (5xx, 3xx, a 2xx that is not the documented one),
       or what it answered is not the model, not HTTP or too large
503    there is no connection: refused, unknown host, reset, dropped
504    a time limit passed: 3 s to connect, 6 s without a byte, 8.5 s in all
====== ======================================================================

``detail`` says what failed and why (``Error updating task: workflow_id must be
an existing id.``); a 401 has ``WWW-Authenticate: Bearer``. No token and no value
of a payload or an answer stands in a detail, a log record or a traceback; what
the exam manager says of a refusal is passed on, less the token.

``GET`` and ``PUT`` are sent a second time if the connection was dropped before a
byte of an answer came; ``POST`` and ``DELETE`` never are.

The calls block: in an ``async def`` handler, use ``run_in_threadpool``.

The address is ``http://exam-manager:8000`` or, if it is set when this module is
imported, the environment variable ``EXAM_MANAGER_URL``. For https,
``REQUESTS_CA_BUNDLE`` names the certificates to trust. No proxy variable and no
netrc entry is used.
"""

import http.client
import io
import logging
import math
import os
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from enum import Enum
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args
from urllib.parse import quote
from uuid import UUID

import requests
import urllib3
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from pydantic_core.core_schema import ErrorType
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from exam_models import (  # type: ignore[import-not-found, unused-ignore]
        AcquisitionTaskOut,
        MRISequenceOut,
        ResultOut,
        SetResult,
    )
else:
    try:
        from scanhub_libraries.models import (
            AcquisitionTaskOut,
            MRISequenceOut,
            ResultOut,
            SetResult,
        )
    except ModuleNotFoundError as error:
        if error.name != "scanhub_libraries":
            raise
        from exam_models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult

__all__ = [
    "RESULT_URI",
    "SEQUENCE_URI",
    "TASK_URI",
    "AcquisitionTaskOut",
    "MRISequenceOut",
    "ResultOut",
    "SetResult",
    "create_blank_result",
    "delete_blank_result",
    "get_sequence",
    "get_task",
    "set_result",
    "set_task",
]

_EXAM_MANAGER = (
    os.environ.get("EXAM_MANAGER_URL", "").strip().rstrip("/") or "http://exam-manager:8000"
)

TASK_URI = f"{_EXAM_MANAGER}/api/v1/exam/task"
"""Address of the tasks, ``http://exam-manager:8000/api/v1/exam/task`` if it is not set."""
RESULT_URI = f"{_EXAM_MANAGER}/api/v1/exam/result"
"""Address of the results, ``http://exam-manager:8000/api/v1/exam/result`` if it is not set."""
SEQUENCE_URI = f"{_EXAM_MANAGER}/api/v1/exam/sequence"
"""Address of the sequences, ``http://exam-manager:8000/api/v1/exam/sequence`` if it is not set."""

_CONNECT_SECONDS = 3.0
_WAIT_SECONDS = 6.0  # The exam manager may spend 5 s on the token before it answers.
_CALL_SECONDS = 8.5  # The rest of the 10 s is for reading the JSON, which nothing can interrupt.
_SEQUENCE_BYTES = 96 * 2**20
_RECORD_BYTES = 8 * 2**20
_VALUES = 200_000  # Of a payload or an answer; pydantic reads so many in 1 s at most.
_VALUE_BYTES = _RECORD_BYTES // _VALUES  # What a value of a payload counts at least.
_HEAD_BYTES = 2**14  # Of an answer; Python reads some heads in the square of their length.
_DEPTH = 190  # Of a field; pydantic reads 200.
_ID_CHARACTERS = 4096

_logger = logging.getLogger(__name__)


def get_task(task_id: str, user_access_token: str) -> AcquisitionTaskOut:
    """Get an acquisition task.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    AcquisitionTaskOut
        The task.

    Raises
    ------
    fastapi.HTTPException
        404 if the task is not found, 400 if it is not an acquisition task;
        else as in the module's table.
    """
    return _call("GET", "task", f"{TASK_URI}/", task_id, user_access_token, AcquisitionTaskOut)


def set_task(
    task_id: str, payload: AcquisitionTaskOut, user_access_token: str
) -> AcquisitionTaskOut:
    """Update a task.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    payload : AcquisitionTaskOut
        The whole task: the exam manager resets a field that is left out to its
        default, and ignores those that are its own (``id``, ``creator``,
        ``results``, ...).
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    AcquisitionTaskOut
        The task as the exam manager now holds it.

    Raises
    ------
    fastapi.HTTPException
        404 if the task is not found, 400 if its workflow is not; else as in the
        module's table.
    """
    return _call(
        "PUT", "task", f"{TASK_URI}/", task_id, user_access_token, AcquisitionTaskOut, payload
    )


def get_sequence(sequence_id: str, user_access_token: str) -> MRISequenceOut:
    """Get a sequence with its files.

    Parameters
    ----------
    sequence_id : str
        Id of the sequence, 24 hexadecimal digits.
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    MRISequenceOut
        The sequence; ``seq_file`` and ``xml_file`` hold the files' text.

    Raises
    ------
    fastapi.HTTPException
        404 if the sequence is not found; else as in the module's table. The
        exam manager answers 500 to an id that is not an ObjectId: a 502 here.
    """
    return _call(
        "GET", "sequence", f"{SEQUENCE_URI}/", sequence_id, user_access_token, MRISequenceOut
    )


def create_blank_result(task_id: str, user_access_token: str) -> ResultOut:
    """Create a result without files, to be filled by `set_result`.

    Parameters
    ----------
    task_id : str
        Id of the task that the result is of, a UUID.
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    ResultOut
        The result, of type ``NOT_SET``.

    Raises
    ------
    fastapi.HTTPException
        400 if the task does not exist; else as in the module's table.
    """
    return _call(
        "POST", "blank result", f"{RESULT_URI}?task_id=", task_id, user_access_token, ResultOut
    )


def delete_blank_result(result_id: str, user_access_token: str) -> None:
    """Delete a result, as after a failed upload.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    user_access_token : str
        Bearer token of the user.

    Raises
    ------
    fastapi.HTTPException
        404 if the result is not found; else as in the module's table.
    """
    _call("DELETE", "blank result", f"{RESULT_URI}/", result_id, user_access_token, _Nothing)


def set_result(result_id: str, payload: SetResult, user_access_token: str) -> ResultOut:
    """Say where a result's files are and what they hold.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    payload : SetResult
        Type, directory, files and meta data.
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    ResultOut
        The result as the exam manager now holds it.

    Raises
    ------
    fastapi.HTTPException
        404 if the result is not found; else as in the module's table.
    """
    return _call(
        "PUT", "result", f"{RESULT_URI}/", result_id, user_access_token, ResultOut, payload
    )


# From here on, the path of one request, in the order in which the request travels it.

_VERB = {"GET": "getting", "POST": "creating", "PUT": "updating", "DELETE": "deleting"}
_DOCUMENTED_STATUS = {"GET": 200, "POST": 201, "PUT": 200, "DELETE": 204}
_REPEATABLE = {"GET", "PUT"}
_PAYLOAD_MODEL: dict[str, type[BaseModel]] = {"task": AcquisitionTaskOut, "result": SetResult}
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1

_Model = TypeVar("_Model", bound=BaseModel)


class _Nothing(BaseModel):
    """The body of a 204."""


class _CallError(Exception):
    """What went wrong, on its way to `_call`, which makes it an `HTTPException`."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        self.why = why


def _call(
    method: str,
    noun: str,
    url: str,
    record_id: str,
    token: str,
    model: type[_Model],
    payload: BaseModel | None = None,
) -> _Model:
    """Carry out one call; `url` lacks the id, which is its last part."""
    started = time.monotonic()
    _clock.deadline = started + _CALL_SECONDS
    answered: int | str = "not sent"
    try:
        authorization = _authorization(token)
        url += _segment(record_id)
        body = _body(payload, _PAYLOAD_MODEL[noun]) if method == "PUT" else None
        limit = _SEQUENCE_BYTES if noun == "sequence" else _RECORD_BYTES
        request = _request(method, url, authorization, body)
        answered = "no answer"
        answered, answer = _send(request, limit)
        if answered != _DOCUMENTED_STATUS[method]:
            raise _refusal(method, answered, answer, token)
        return _record(method, answer, model)
    except _CallError as error:
        status, why = error.status, error.why
    finally:
        milliseconds = (time.monotonic() - started) * 1000
        _logger.debug("%s %.300s: %s in %.1f ms", method, url, answered, milliseconds)
    # Raised after the handler, not within it: a chained exception would hold values.
    missing = method == "GET" and status == 404
    what = f"{noun.capitalize()} not found" if missing else f"Error {_VERB[method]} {noun}"
    detail = _detail(what, why)
    _logger.warning("%s %.300s: %d %s", method, url, status, detail)
    raise HTTPException(status, detail, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def _authorization(token: str) -> str:
    text = _text(token)
    if not _B64TOKEN.fullmatch(text):
        raise _CallError(401, "the access token is not a bearer token")
    return f"Bearer {text}"


def _segment(record_id: str) -> str:
    # Ids come in messages of devices; `DELETE /result/../<uuid>` would delete an exam.
    text = str(record_id) if isinstance(record_id, UUID) else _text(record_id)
    try:
        segment = quote(text, safe="") if len(text) <= _ID_CHARACTERS else ""
    except UnicodeEncodeError:
        segment = ""
    if segment in {"", ".", ".."}:
        raise _CallError(404, "the id names nothing")
    return segment


def _text(value: Any) -> str:
    """Return a string as it is, whatever a subclass says of it; what is none is empty."""
    return str.__str__(value) if issubclass(type(value), str) else ""


def _body(payload: Any, model: type[BaseModel]) -> bytes:
    """Write a payload, checked again, nested models too: a handler may assign anything."""
    if not issubclass(type(payload), model):
        raise _CallError(422, f"the payload is not of type {model.__name__}")
    try:
        budget = [_RECORD_BYTES]
        for field, value in BaseModel.__iter__(payload):
            _check(field, value, budget)
        checked = type(payload).model_validate(payload.model_dump(by_alias=True, warnings=False))
        return _json(checked.model_dump(by_alias=True, warnings=False))
    except _CallError:
        raise
    except ValidationError as error:
        raise _CallError(422, _problems(error)) from None
    except Exception:  # The validators and serializers of a model may raise anything.
        raise _CallError(422, "payload: JSON cannot hold the value") from None


# What JSON can hold: the bytes of a value beyond `_VALUE_BYTES`, or an error for what JSON cannot
# hold, such as surrogates, undecodable bytes, NaN, infinities and more digits than Python reads.
_SIZE: dict[type, Callable[[Any], int]] = {
    **dict.fromkeys((NoneType, bool, UUID, datetime, date), lambda _: 0),
    str: lambda value: len(str.encode(value)),
    bytes: lambda value: len(bytes.decode(value)),
    int: lambda value: len(int.__str__(value)),
    float: lambda value: 0 * math.floor(value),
}


def _check(field: str, value: Any, budget: list[int], depth: int = 1) -> None:
    """Raise an error that names the field if JSON cannot hold the value, or it is too large."""
    budget[0] -= _VALUE_BYTES
    try:
        if depth > _DEPTH:
            raise ValueError
        # As pydantic reads them: a subclass may show itself otherwise.
        if size := _SIZE.get(type(value)):
            budget[0] -= size(value)
        elif isinstance(value, BaseModel):
            for name, part in BaseModel.__iter__(value):
                _check(f"{field}.{name}", part, budget, depth + 1)
        elif isinstance(value, dict):
            for key, part in dict.items(value):
                budget[0] -= len(str.encode(key))
                _check(field, part, budget, depth + 1)
        elif isinstance(value, list):
            for part in list.__iter__(value):
                _check(field, part, budget, depth + 1)
        elif isinstance(value, tuple):
            for part in tuple.__iter__(value):
                _check(field, part, budget, depth + 1)
        elif isinstance(value, Enum):
            _check(field, value.value, budget, depth + 1)
        else:
            budget[0] -= next(_SIZE[kind] for kind in _SIZE if isinstance(value, kind))(value)
    except _CallError:
        raise
    except Exception:  # An object may raise anything when it is read.
        raise _CallError(422, f"{field}: JSON cannot hold the value") from None
    if budget[0] < 0:
        raise _CallError(422, f"{field}: the value is too large")


def _json(value: Any) -> bytes:
    text = to_json(value, inf_nan_mode="constants")
    from_json(text, allow_inf_nan=False)  # Raises for NaN, and for what is too long or too deep.
    return text


def _request(
    method: str, url: str, authorization: str, body: bytes | None
) -> requests.PreparedRequest:
    # Filled in by hand: `prepare` would take a fifth as long as a whole call.
    request = requests.PreparedRequest()
    request.method = method
    request.url = url
    request.headers = CaseInsensitiveDict(Accept="application/json", Authorization=authorization)
    if body is not None:
        request.body = body
        request.headers["Content-Type"] = "application/json"
        request.headers["Content-Length"] = str(len(body))
    return request


def _send(request: requests.PreparedRequest, limit: int) -> tuple[int, bytes]:
    """Send a request, a second time only where that is safe; return status and body."""
    _clock.answered = False
    try:
        if request.method in _REPEATABLE:
            try:
                return _exchange(_session, request, limit)
            except requests.ConnectionError as error:
                if _clock.answered or not isinstance(_cause(error), _DROPPED):
                    raise
        # On a connection of its own, be it the first try of a POST or the second of a GET: the
        # exam manager closes one that was idle for 5 s, and what is sent at that moment fails.
        request.headers["Connection"] = "close"
        with _Session() as session:
            return _exchange(session, request, limit)
    except (OSError, ValueError, RuntimeError, urllib3.exceptions.HTTPError) as error:
        raise _unanswered(error) from None


def _exchange(
    session: requests.Session, request: requests.PreparedRequest, limit: int
) -> tuple[int, bytes]:
    with session.send(
        request,
        stream=True,
        timeout=(_left(_CONNECT_SECONDS), _WAIT_SECONDS),
        verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
        proxies={},
    ) as response:
        if not response.headers.get("Content-Length", "0").strip().isdecimal():
            raise _CallError(502, "the answer's Content-Length is not a number")
        if "," in response.headers.get("Content-Encoding", ""):  # costs minutes to decode
            raise _CallError(502, "the answer is encoded more than once")
        pieces = []
        size = 0
        for piece in response.iter_content(2**20):
            pieces.append(piece)
            size += len(piece)
            if size > (limit if response.ok else _RECORD_BYTES):
                raise _CallError(502, "the answer is too large")
        answer = b"".join(pieces)
    # At first with what stands within strings, since leaving that out takes time.
    if len(answer) > _VALUES and _is_crowded(answer) and _is_crowded(_structure(answer)):
        raise _CallError(502, "the answer is too large")
    return response.status_code, answer


def _is_crowded(text: bytes) -> bool:
    """Whether a JSON text may hold too many values, by its commas and brackets."""
    marks = 0
    for mark in (b",", b"[", b"{"):
        place = text.find(mark)  # Ten times as fast as `count` where there are few.
        while place >= 0 and marks <= _VALUES:
            marks += 1
            place = text.find(mark, place + 1)
    return marks > _VALUES


def _structure(text: bytes) -> bytes:
    """Leave out the strings of a JSON text; of each value there may be two, with its key."""
    quoted = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(quoted.split(b'"', 4 * _VALUES)[::2])


def _cause(error: BaseException) -> BaseException:
    """Unwrap an error: requests and urllib3 hold the one that they wrap as their last argument."""
    inner = error.__cause__ or (error.args and error.args[-1])
    return _cause(inner) if isinstance(inner, BaseException) else error


_DROPPED = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_TIMEOUTS = (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)


def _unanswered(error: Exception) -> _CallError:
    cause = _cause(error)
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    if isinstance(cause, _TIMEOUTS):
        if time.monotonic() >= _clock.deadline:
            return _CallError(504, f"the call took longer than {_CALL_SECONDS:g} s")
        if isinstance(error, requests.ConnectTimeout):
            return _CallError(504, f"no connection to the exam manager in {_CONNECT_SECONDS:g} s")
        return _CallError(504, f"the exam manager sent nothing for {_WAIT_SECONDS:g} s")
    if not _clock.answered:
        return _CallError(503, f"no connection to the exam manager ({reason})")
    if isinstance(cause, (OSError, urllib3.exceptions.IncompleteRead)):
        return _CallError(503, f"the exam manager broke off its answer ({reason})")
    return _CallError(502, f"the exam manager's answer is not valid HTTP ({reason})")


class _Problem(BaseModel):
    type: str
    loc: list[str | int]
    msg: str


class _Refusal(BaseModel):
    detail: str | list[_Problem]


def _refusal(method: str, status: int, answer: bytes, token: str) -> _CallError:
    """Read the answer of an exam manager that did not do what it was asked."""
    why = f"the exam manager answered {status}"
    if not 400 <= status < 500:
        return _CallError(502, why)
    with suppress(ValidationError):
        detail = _Refusal.model_validate_json(answer).detail
        if not isinstance(detail, str):  # The first part of `loc` is where: body, query or path.
            detail = _fields((problem.type, problem.loc[1:], problem.msg) for problem in detail)
        why = detail.replace(token, "...")
    return _CallError(404 if method == "GET" and status in {400, 422} else status, why)


_JSON: TypeAdapter[Any] = TypeAdapter(JsonValue, config=ConfigDict(allow_inf_nan=False))


def _record(method: str, answer: bytes, model: type[_Model]) -> _Model:
    """Read the answer of an exam manager that did."""
    try:
        data = from_json(b"{}" if model is _Nothing else answer, allow_inf_nan=False)
        # `AcquisitionTaskOut` as ScanHub defines it takes a DAG task, too.
        if model is AcquisitionTaskOut and isinstance(data, dict):
            if data.get("task_type", "ACQUISITION") != "ACQUISITION":
                raise _CallError(400 if method == "GET" else 502, "it is not an acquisition task")
        record = model.model_validate(data)
        # Some fields take anything, and pydantic takes 1e999 for an infinity.
        if not _JSON.validator.isinstance_python(data):
            raise _CallError(502, "the exam manager's answer holds a number beyond a float")
        return record
    except ValidationError as error:
        why = f"the exam manager's answer is not a valid {model.__name__}: {_problems(error)}"
        raise _CallError(502, why) from None
    except ValueError:
        raise _CallError(502, "the exam manager's answer is not JSON") from None


def _problems(error: ValidationError) -> str:
    count = error.error_count()
    if count > 100:
        return f"{count} fields are wrong"
    return _fields((problem["type"], problem["loc"], problem["msg"]) for problem in error.errors())


_KINDS = frozenset(get_args(ErrorType))


def _fields(problems: Iterable[tuple[str, Sequence[str | int], str]]) -> str:
    """Name the fields that are wrong, and why in pydantic's words, without any of their values."""
    lines = []
    for kind, loc, message in problems:
        if kind not in _KINDS:  # Another author's words may hold anything.
            message = ""
        elif kind == "union_tag_invalid":  # "Input tag '...' found using 'kind' does not ..."
            message = message.rpartition(" found using ")[2]
        elif kind not in {"enum", "literal_error"}:  # What follows a comma may be the value.
            message = message.partition(",")[0]
        lines.append(": ".join(filter(None, (".".join(map(str, loc)), message))))
    return "; ".join(lines)


def _detail(what: str, why: str) -> str:
    """Say what failed and why, in a line, but nothing twice: `Task not found` says `Not Found`."""
    line = "".join(character if character.isprintable() else " " for character in why[:300])
    why = " ".join(line.split())
    said, added = ({*text.casefold().rstrip(".").split()} for text in (what, why))
    if said <= added:
        return why
    return what if added <= said else f"{what}: {why}"


# The connections: those of requests and urllib3, but within the deadline of a call, and
# without what would tie one user's call to another's, or a forked child's to its parent's.


class _Clock(threading.local):
    """The time limit of the call that this thread carries out."""

    deadline = 0.0
    answered = False  # whether a byte of the answer has come


_clock = _Clock()


def _left(seconds: float) -> float:
    left = _clock.deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(seconds, left)


class _Reader(io.RawIOBase):
    """What a socket receives; requests' own limit starts anew with every byte that drips in."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(_WAIT_SECONDS))
        count = self._raw.readinto(buffer)
        _clock.answered = _clock.answered or bool(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines(io.BufferedReader):
    """Bounds what is read by the line: the head of an answer, the sizes of its chunks."""

    _size = 0

    def readline(self, *_: Any) -> bytes:
        line = super().readline(_HEAD_BYTES)
        self._size += len(line)
        if self._size >= _HEAD_BYTES:
            raise http.client.LineTooLong("head")
        return line

    def read(self, *size: Any) -> bytes:
        self._size = 0
        return super().read(*size)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Lines(_Reader(sock, self.fp.detach()))

    def begin(self) -> None:
        try:
            super().begin()
        except TypeError:  # The head is read by a parser of mail, which trips over some boundaries.
            raise http.client.HTTPException from None
        if self.msg.defects or self.msg.get_payload():  # urllib3 would log what they hold.
            raise http.client.HTTPException
        del self.msg["Set-Cookie"]  # requests would read it for each response.
        # After an interim answer or a 304, the rest would be taken for the next user's answer.
        self.will_close = self.will_close or self.length == 0


class _Connection(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        # In a thread that may be left behind: neither a name service nor OpenSSL after a fork
        # keeps to a limit, and each of a name's addresses has one of its own.
        errors: list[BaseException] = []
        late = False

        def attempt() -> None:
            try:
                super(_Connection, self).connect()
            except BaseException as error:
                errors.append(error)
            if late:
                self.close()

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(_left(_CONNECT_SECONDS))
        if thread.is_alive():
            late = True
            raise urllib3.exceptions.ConnectTimeoutError
        if errors:
            raise errors[0]

    def send(self, data: Any) -> None:
        if self.sock:
            self.sock.settimeout(_left(_CALL_SECONDS))
        super().send(data)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Idle:
    """The idle connections: no bound, and no lock, which a fork could leave locked for good."""

    def __init__(self, maxsize: int) -> None:
        self._connections: list[Any] = []

    def put(self, item: Any, block: bool = False) -> None:
        self._connections.append(item)

    def get(self, block: bool, timeout: float | None = None) -> Any:
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection
    QueueCls: Any = _Idle


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection
    QueueCls: Any = _Idle


class _NoCookies(RequestsCookieJar):
    """A jar that takes no cookie, and not the lock for it, which a fork could leave locked."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


class _Session(requests.Session):
    """A session that keeps no cookie, follows no redirect, and sends only what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies = _NoCookies()
        self.renew()

    def renew(self) -> None:
        """Begin anew without a connection."""
        adapter = HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


_session = _Session()
os.register_at_fork(after_in_child=_session.renew)


class _First(BaseModel):
    id: UUID


# What pydantic needs for its first UUID and its first error, it looks up under locks, which a
# fork in this moment would leave locked in the child.
for _id in ("0" * 32, None):
    with suppress(_CallError):
        _body(_First.model_construct(id=_id), _First)
