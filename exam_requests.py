# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Handler for exam requests: the device manager's calls to the exam manager.

Six functions fetch tasks and sequences and create, update and delete results.
Each takes the bearer token of the user on whose behalf it is called, and returns the
documented model or raises `fastapi.HTTPException`. They block: in an ``async def``
handler, use ``run_in_threadpool``.

====== ======================================================================
status what happened
====== ======================================================================
400    `get_task`: no acquisition task; `create_blank_result`: no such task
401    the token is no bearer token (not sent), or the exam manager refused it
403    the user may not do this
404    the id names nothing (not sent), or the record is not found;
       `get_task` and `get_sequence`: also the exam manager's 400 and 422
422    the payload is not valid for its model, or JSON cannot hold it (not sent)
4xx    any other refusal, and one without a reason, as of a proxy: its status
502    the exam manager or a proxy failed (5xx, 3xx, another 2xx than documented),
       or the answer is not the model, not HTTP or more than 96 MiB
503    no connection: refused, unknown host, dropped, a certificate or a setting
504    a time limit: 3 s to connect to each address, 6 s without a byte, 10 s for
       the answer and 1 s more for each 256 KiB of it, 60 s at most
====== ======================================================================

``detail`` is one line that says what failed and why (``Error updating task:
workflow_id must be an existing id.``); a 401 has ``WWW-Authenticate: Bearer``. No
token and no value of a payload or an answer stands in a detail, a log record or a
traceback; what the exam manager says of a refusal is passed on, less the token.

``GET`` and ``PUT`` are sent once more if the connection was dropped before the
answer began; ``POST`` and ``DELETE`` never are. A call that ended in 502, 503
or 504 may have been carried out.

The address is ``http://exam-manager:8000`` or, if it is set at the import, the
environment variable ``EXAM_MANAGER_URL``. For https, ``REQUESTS_CA_BUNDLE`` names the
certificates to trust. No proxy variable and no netrc entry is used.
"""

import http.client
import logging
import os
import re
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import requests
import urllib3
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

try:
    from scanhub_libraries.models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult
except ModuleNotFoundError as error:
    if error.name != "scanhub_libraries":
        raise
    from exam_models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult  # type: ignore[no-redef, unused-ignore]

__all__ = [
    "TASK_URI", "RESULT_URI", "SEQUENCE_URI", "get_task", "set_task", "get_sequence",
    "create_blank_result", "delete_blank_result", "set_result",
    "AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult",
]  # fmt: skip


def _checked(url: str) -> str:
    """Return an address that may work; with one that cannot, the service is not to start."""
    try:
        parts = urlsplit(url)
        for wrong, what in (
            (parts.scheme not in {"http", "https"}, "it does not begin with http:// or https://"),
            ("@" in parts.netloc, "it holds a user"),
            (parts.query or parts.fragment, "it holds a query or a fragment"),
            (not re.fullmatch(r"[\w.:-]+", parts.hostname or ""), "its host is not a name"),
            (parts.port == 0, "its port is 0"),
            ("/api/v1/exam" in parts.path, "it holds /api/v1/exam, which is added to it"),
            (not re.fullmatch(r"(/[\w.~-]+)*", parts.path), "its path is not one of names"),
        ):
            if wrong:
                raise ValueError(what)
    except ValueError as error:
        shown = re.sub(".*@", "...@", url)
        raise ValueError(f"EXAM_MANAGER_URL is {shown!r}: {error}") from None
    return url


_EXAM_MANAGER = _checked(
    os.environ.get("EXAM_MANAGER_URL", "").strip().rstrip("/") or "http://exam-manager:8000"
)

TASK_URI = f"{_EXAM_MANAGER}/api/v1/exam/task"
"""Address of the tasks, ``http://exam-manager:8000/api/v1/exam/task`` if it is not set."""
RESULT_URI = f"{_EXAM_MANAGER}/api/v1/exam/result"
"""Address of the results, ``http://exam-manager:8000/api/v1/exam/result`` if it is not set."""
SEQUENCE_URI = f"{_EXAM_MANAGER}/api/v1/exam/sequence"
"""Address of the sequences, ``http://exam-manager:8000/api/v1/exam/sequence`` if it is not set."""

_CONNECT_SECONDS = 3.0  # To each address of the name.
_WAIT_SECONDS = 6.0  # Without a byte: the exam manager may spend 5 s on the token.
_ANSWER_SECONDS = 10.0  # For the answer as a whole, if it is small, ...
_BYTES_PER_SECOND = 2**18  # ... and 1 s more for each so many bytes that have come, ...
_LONGEST_SECONDS = 60.0  # ... but not longer.
_ANSWER_BYTES = 96 * 2**20
_ID_CHARACTERS = 128
_SECRET_CHARACTERS = 16  # A token that is shorter is a test's, and may be a word of a detail.
_DETAIL_CHARACTERS = 500

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
    return _call("GET", "task", TASK_URI, task_id, user_access_token, AcquisitionTaskOut)


def set_task(
    task_id: str, payload: AcquisitionTaskOut, user_access_token: str
) -> AcquisitionTaskOut:
    """Update a task.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    payload : AcquisitionTaskOut
        The whole task: the exam manager resets fields that are left out, and
        ignores those that are its own (``id``, ``creator``, ``results``, ...).
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    AcquisitionTaskOut
        The task as the exam manager now holds it.

    Raises
    ------
    fastapi.HTTPException
        400 if its workflow does not exist; else as in the module's table.
    """
    return _call("PUT", "task", TASK_URI, task_id, user_access_token, AcquisitionTaskOut, payload)


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
        404 if the sequence is not found, 502 if the id is not an ObjectId (the
        exam manager answers 500 to it); else as in the module's table.
    """
    return _call("GET", "sequence", SEQUENCE_URI, sequence_id, user_access_token, MRISequenceOut)


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
    return _call("POST", "blank result", RESULT_URI, task_id, user_access_token, ResultOut)


def delete_blank_result(result_id: str, user_access_token: str) -> None:
    """Delete a result, as after a failed upload.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    user_access_token : str
        Bearer token of the user.

    Returns
    -------
    None

    Raises
    ------
    fastapi.HTTPException
        404 if the result is not found; else as in the module's table.
    """
    _call("DELETE", "blank result", RESULT_URI, result_id, user_access_token, _Nothing)


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
    return _call("PUT", "result", RESULT_URI, result_id, user_access_token, ResultOut, payload)


# From here on, the path of one request, in the order in which the request travels it.

_VERB = {"GET": "getting", "POST": "creating", "PUT": "updating", "DELETE": "deleting"}
_BEFORE_ID = {"GET": "/", "POST": "?task_id=", "PUT": "/", "DELETE": "/"}
_DOCUMENTED_STATUS = {"GET": 200, "POST": 201, "PUT": 200, "DELETE": 204}
_REPEATABLE = {"GET", "PUT"}

_Record = TypeVar("_Record", bound=BaseModel)


class _Nothing(BaseModel):
    """What a 204 holds."""


class _Task(BaseModel):
    """What tells an acquisition task from others."""

    task_type: Any = "ACQUISITION"


class _CallError(Exception):
    """Status and reason of a call that failed, on their way to `_call`."""


def _call(
    method: str,
    noun: str,
    url: str,
    record_id: str,
    token: str,
    model: type[_Record],
    payload: BaseModel | None = None,
) -> _Record:
    """Carry out one call."""
    started = time.monotonic()
    url += _BEFORE_ID[method]
    came: int | str = "not sent"
    try:
        bearer = _bearer(token)
        url += _segment(record_id)
        body = _body(payload) if method == "PUT" else None
        came = "no answer"
        came, answer = _send(_request(method, url, bearer, body))
        if came != _DOCUMENTED_STATUS[method]:
            raise _refusal(method, came, answer)
        return _record(method, answer, model)
    except _CallError as failure:
        status, why = failure.args
    finally:
        milliseconds = (time.monotonic() - started) * 1000
        _logger.debug("%s %s: %s in %.1f ms", method, url, came, milliseconds)
    # Raised after the handler, not within it: a chained exception would hold values.
    detail = f"Error {_VERB[method]} {noun}: {_line(why, str(token))}"
    level = logging.WARNING if status >= 500 else logging.INFO
    _logger.log(level, "%s %s: %d %s", method, url, status, detail)
    raise HTTPException(status, detail, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def _line(text: str, token: str) -> str:
    """Make one readable line, and take out a token that is long enough to be a secret."""
    if len(token) >= _SECRET_CHARACTERS:
        text = text.replace(token, "...")
    text = text[:_DETAIL_CHARACTERS]
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1


def _bearer(token: object) -> str:
    if not isinstance(token, str) or not _B64TOKEN.fullmatch(token):
        raise _CallError(401, "the access token is not a bearer token")
    return "Bearer " + token


# Ids come in messages of devices: `DELETE /result/../<uuid>` would delete an exam, and uvicorn
# decodes `%2F` before it looks for a route. What is longer may be a token.
_ID = re.compile(rf"(?!\.\.?$)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{_ID_CHARACTERS}}}")


def _segment(record_id: object) -> str:
    text = str(record_id) if isinstance(record_id, UUID) else record_id
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise _CallError(404, "the id names nothing")
    return quote(text, safe="")


def _body(payload: object) -> bytes:
    """Write a payload, and check what the exam manager will read of it."""
    if not isinstance(payload, BaseModel):
        raise _CallError(422, f"the payload is not a model, but of type {type(payload).__name__}")
    fields: Any = payload
    try:
        fields = payload.model_dump(by_alias=True, warnings=False)
        text = _json(fields)
        type(payload).model_validate_json(text)
        return text
    except ValidationError as error:
        raise _CallError(422, _fields(error.errors()))
    except Exception:  # An object's own code may raise anything.
        raise _CallError(422, _misfit(fields))


def _json(value: Any) -> bytes:
    text = to_json(value)
    from_json(text, allow_inf_nan=False)  # The exam manager would read NaN as null.
    return text


def _misfit(value: Any, *place: str) -> str:
    """Name the innermost value that JSON cannot hold, by its place and its type."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, (list, tuple)):
        parts = enumerate(value)
    for key, part in parts if len(place) < 20 else ():  # A circle has no end.
        try:
            _json(part)
        except Exception:  # An object's own code may raise anything.
            return _misfit(part, *place, str(key))
    kind = "NaN or an infinity" if isinstance(value, float) else f"this {type(value).__name__}"
    return f"{'.'.join(place) or 'payload'}: JSON cannot hold {kind}"


def _request(method: str, url: str, bearer: str, body: bytes | None) -> requests.PreparedRequest:
    # Filled in by hand: to prepare it would take a fifth of a call, and add the session's cookies.
    request = requests.PreparedRequest()
    request.method = method
    request.url = url
    request.headers = CaseInsensitiveDict(Accept="application/json", Authorization=bearer)
    if body is not None:
        request.body = body
        length = str(len(body))
        request.headers.update({"Content-Type": "application/json", "Content-Length": length})
    return request


class _Session(requests.Session):
    """A session that follows no redirect and takes nothing from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=0)  # As many connections as there are threads.
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say of every redirect that it leads nowhere: its body is not even read."""


_sessions = [_Session()]
"""The last one is in use. A forked process adds its own and keeps its parent's: to free them might
wait for a lock that was held at the fork, and would close connections that the parent uses."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _sessions.append(_Session()))


def _send(request: requests.PreparedRequest) -> tuple[int, bytes]:
    """Send a request, a second time only where that is safe; return status and body."""
    try:
        if request.method in _REPEATABLE:
            try:
                return _exchange(_sessions[-1], request)
            except requests.ConnectionError as error:
                if not isinstance(_cause(error), _DROPPED):
                    raise
        # On a connection of its own, be it the first try of a POST or the second of a GET: the
        # exam manager closes one that was idle for 5 s, and what is sent at that moment fails.
        request.headers["Connection"] = "close"
        with _Session() as session:
            return _exchange(session, request)
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        raise _unanswered(error)


def _exchange(session: requests.Session, request: requests.PreparedRequest) -> tuple[int, bytes]:
    with session.send(
        request,
        stream=True,
        timeout=(_CONNECT_SECONDS, _WAIT_SECONDS),
        verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,  # As trust_env would read it.
    ) as response:
        status = response.status_code
        # Of any other answer the status is enough. It is left unread, which closes the connection:
        # what a server sends after a 1xx, 204 or 304 must not become the next user's answer.
        if status not in {200, 201} and not 400 <= status < 500:
            return status, b"{}"
        started = time.monotonic()
        pieces = []
        size = 0
        while piece := response.raw.read1(2**20):  # What has come, to check the limits in between.
            pieces.append(piece)
            size += len(piece)
            if size > _ANSWER_BYTES:
                raise _CallError(502, f"the answer has more than {_ANSWER_BYTES >> 20} MiB")
            limit = min(_ANSWER_SECONDS + size / _BYTES_PER_SECOND, _LONGEST_SECONDS)
            if time.monotonic() - started > limit:
                raise _CallError(504, f"the answer took longer than {limit:.3g} s")
        return status, b"".join(pieces)


_DROPPED = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)


def _cause(error: BaseException) -> BaseException:
    """Unwrap an error: what requests and urllib3 wrap is the cause, or else the last argument."""
    inner = error.__cause__ or (error.args and error.args[-1])
    return _cause(inner) if isinstance(inner, BaseException) else error


def _unanswered(error: Exception) -> _CallError:
    """Say why there is no answer, in the words of the system or the library."""
    cause = _cause(error)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    # From the narrow to the wide: a time limit is a failed connection, too.
    if isinstance(error, requests.ConnectTimeout) or "handshake operation timed out" in reason:
        return _CallError(504, f"no connection to the exam manager in {_CONNECT_SECONDS:g} s")
    if isinstance(error, (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)):
        return _CallError(504, f"the exam manager sent nothing for {_WAIT_SECONDS:g} s")
    if isinstance(cause, (TimeoutError, requests.Timeout)):
        return _CallError(504, f"the request was not taken in {_CONNECT_SECONDS:g} s")
    if isinstance(error, (urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)):
        return _CallError(503, f"the exam manager broke off its answer: {reason}")
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        return _CallError(502, "the answer is not HTTP")
    return _CallError(503, f"no connection to the exam manager: {reason}")


def _refusal(method: str, status: int, answer: bytes) -> _CallError:
    """Read the answer of an exam manager that did not do what it was asked."""
    answered = f"the exam manager, or a proxy before it, answered {status}"
    if not 400 <= status < 500:
        return _CallError(502, answered)
    why = ""
    with suppress(ValueError, TypeError, KeyError):  # A proxy's page, say.
        detail = from_json(answer)["detail"]
        # Where a problem is begins with "body", "query" or "path".
        why = detail if isinstance(detail, str) else _fields(detail, 1)
    if not why:
        why = f"{answered} without a detail"
    elif method == "GET" and status in {400, 422}:
        status = 404
    return _CallError(status, why)


def _record(method: str, answer: bytes, model: type[_Record]) -> _Record:
    """Read the answer of an exam manager that did."""
    try:
        if model is AcquisitionTaskOut:  # As ScanHub defines it, it takes a DAG task, too.
            if _Task.model_validate_json(answer).task_type != "ACQUISITION":
                raise _CallError(400 if method == "GET" else 502, "it is not an acquisition task")
        return model.model_validate_json(answer)
    except ValidationError as error:
        why = f"the answer is not a valid {model.__name__}: {_fields(error.errors())}"
        raise _CallError(502, why)


def _fields(problems: Iterable[Any], skip: int = 0) -> str:
    """Name the fields that are wrong, and why in pydantic's words, without any of their values."""
    lines = []
    for problem in problems:
        why = problem["msg"]
        if problem["type"] != "enum":  # Behind a comma may be the value.
            why = why.partition(",")[0]
        place = ".".join(map(str, problem["loc"][skip:]))
        lines.append(f"{place}: {why}" if place else why)
    return "; ".join(lines)
