# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Handler for exam requests: the device manager's calls to the exam manager.

The functions fetch and update tasks, fetch sequences, and create, set and delete results.
Each takes a user's bearer token, and returns the documented model (or None) or raises
`fastapi.HTTPException`. They block: an ``async def`` handler awaits ``run_in_threadpool``.

====== ======================================================================
status what happened
====== ======================================================================
400    `get_task`: it is not an acquisition task; `set_task`: its workflow is
       refused; `create_blank_result`: there is no such task
401    the token is not a bearer token (no call), or the exam manager refused it
403    the user may not do this
404    there is no such record, or the id cannot be sent (no call); `get_task`
       and `get_sequence`: also if the exam manager answers 400 or 422
422    the payload is not valid, or JSON cannot hold it (no call)
4xx    any other refusal, and any refusal without a detail, keeps its status
502    the exam manager or a proxy failed (5xx, a redirect, an undocumented 2xx),
       or its answer is not JSON, not the model, not HTTP or more than 96 MiB
503    no connection, or it broke off: refused, unknown host, a certificate, ...
504    a time limit: 3 s to connect to each address, to send the request, or
       between two bytes of the answer; for the whole answer 10 s, and 1 s more
       for each 256 KiB of it, 60 s at most
====== ======================================================================

``detail`` is one line that says what failed and why (``Error updating task:
workflow_id must be an existing id.``); a 401 has ``WWW-Authenticate: Bearer``. No
detail, log record or traceback shows a token or a value of a payload or an answer; what
the exam manager says about a refusal is passed on, without the token.

``GET`` and ``PUT`` are sent once more if the connection was dropped before an answer was
there, ``POST`` and ``DELETE`` only once. A call that ended in 502, 503 or 504 may have
been carried out.

``EXAM_MANAGER_URL`` is the address (default ``http://exam-manager:8000``), and
``EXAM_MANAGER_TIMEOUT`` the limit for each step, in seconds; both are read on import.
``REQUESTS_CA_BUNDLE`` names the certificates to trust over https.
"""

import http.client
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit
from uuid import UUID

import requests
import urllib3
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from requests import PreparedRequest, Response

try:
    from scanhub_libraries.models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult
except ModuleNotFoundError as error:
    if error.name != "scanhub_libraries":
        raise
    from exam_models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult  # type: ignore

__all__ = [
    "TASK_URI", "RESULT_URI", "SEQUENCE_URI", "get_task", "set_task", "get_sequence",
    "create_blank_result", "delete_blank_result", "set_result",
    "AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult",
]  # fmt: skip


def _setting(name: str, default: str, read: Callable[[str], Any]) -> Any:
    """Read a setting, or stop the import and so the service; a password may precede an @."""
    text = os.environ.get(name, "").strip() or default
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{name} is {re.sub('.*@', '...@', text)!r}: {error}") from None


def _url(text: str) -> str:
    if "@" in text:  # Before all else: other errors would show a part of the password.
        raise ValueError("it contains a user name")
    parts = urlsplit(text)
    host = r"[\w-]+(\.[\w-]+)*\.?|[0-9a-f.]*:[0-9a-f:.]*"  # A name, or an address with colons.
    for wrong, why in (
        (text[0] in "\"'", "there are quotation marks around it"),
        (not re.match("https?://", text, re.I), "it does not begin with http:// or https://"),
        ("?" in text or "#" in text, "it contains a ? or a #"),
        (parts.netloc.endswith(":") or parts.port == 0, "its port is empty or 0"),  # Or it raises.
        (not re.fullmatch(host, parts.hostname or ""), "it has no valid host name"),
        (not re.fullmatch(r"[\w.~%/-]*", parts.path), "its path is not valid"),
        ("/api/v1/exam/" in f"{parts.path}/", "it contains /api/v1/exam, which is added to it"),
    ):
        if wrong:
            raise ValueError(why)
    return text.rstrip("/")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise ValueError("it is not a number of seconds above 0")


_EXAM_MANAGER: str = _setting("EXAM_MANAGER_URL", "http://exam-manager:8000", _url)

TASK_URI = f"{_EXAM_MANAGER}/api/v1/exam/task"
RESULT_URI = f"{_EXAM_MANAGER}/api/v1/exam/result"
SEQUENCE_URI = f"{_EXAM_MANAGER}/api/v1/exam/sequence"

_STEP_SECONDS: float = _setting("EXAM_MANAGER_TIMEOUT", "3", _seconds)
_ANSWER_SECONDS = 10.0  # For the answer as a whole, if it is small, ...
_BYTES_PER_SECOND = 2**18  # ... and 1 s more for each this many bytes received, ...
_LONGEST_SECONDS = 60.0  # ... but not longer.
_ANSWER_BYTES = 96 * 2**20
_ID_CHARACTERS = 128
_SECRET_CHARACTERS = 16  # A shorter token is a test's, and may be an ordinary word.
_DETAIL_CHARACTERS = 500

_logger = logging.getLogger(__name__)


def get_task(task_id: str, user_access_token: str) -> AcquisitionTaskOut:
    """Get an acquisition task.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    user_access_token : str
        Bearer token of the user on whose behalf the call is made.

    Returns
    -------
    AcquisitionTaskOut
        The task.

    Raises
    ------
    fastapi.HTTPException
        404 if there is no such task, 400 if it is of another type; see the table above.
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

    Returns
    -------
    AcquisitionTaskOut
        The task as the exam manager now holds it.

    Raises
    ------
    fastapi.HTTPException
        404 if there is no such task, 400 if its workflow is refused; see the table above.
    """
    return _call("PUT", "task", TASK_URI, task_id, user_access_token, AcquisitionTaskOut, payload)


def get_sequence(sequence_id: str, user_access_token: str) -> MRISequenceOut:
    """Get a sequence with its files.

    Parameters
    ----------
    sequence_id : str
        Id of the sequence, an ObjectId: 24 hexadecimal digits.
    user_access_token : str

    Returns
    -------
    MRISequenceOut
        The sequence; ``seq_file`` and ``xml_file`` hold the text of its files.

    Raises
    ------
    fastapi.HTTPException
        404 if there is no such sequence; see the table above.
    """
    return _call("GET", "sequence", SEQUENCE_URI, sequence_id, user_access_token, MRISequenceOut)


def create_blank_result(task_id: str, user_access_token: str) -> ResultOut:
    """Create a result without files, for `set_result` to fill.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    user_access_token : str

    Returns
    -------
    ResultOut
        The result, of type ``NOT_SET``.

    Raises
    ------
    fastapi.HTTPException
        400 if there is no such task; see the table above.
    """
    return _call("POST", "blank result", RESULT_URI, task_id, user_access_token, ResultOut)


def delete_blank_result(result_id: str, user_access_token: str) -> None:
    """Delete a result, blank or not: call it only if the upload was not completed.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    user_access_token : str

    Returns
    -------
    None

    Raises
    ------
    fastapi.HTTPException
        404 if there is no such result; see the table above.
    """
    _call("DELETE", "blank result", RESULT_URI, result_id, user_access_token, _NoContent)


def set_result(result_id: str, payload: SetResult, user_access_token: str) -> ResultOut:
    """Record where the files of a result are, and what they hold.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    payload : SetResult
        Type, directory, files and metadata.
    user_access_token : str

    Returns
    -------
    ResultOut
        The result as the exam manager now holds it.

    Raises
    ------
    fastapi.HTTPException
        404 if there is no such result; see the table above.
    """
    return _call("PUT", "result", RESULT_URI, result_id, user_access_token, ResultOut, payload)


# From here on, what happens to one request, step by step.

_VERB = {"GET": "getting", "POST": "creating", "PUT": "updating", "DELETE": "deleting"}
_DOCUMENTED_STATUS = {"GET": 200, "POST": 201, "PUT": 200, "DELETE": 204}
_REPEATABLE = {"GET", "PUT"}  # A DELETE that was carried out would end in a 404.
_DROPPED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)

_Model = TypeVar("_Model", bound=BaseModel)
_How = dict[str, Any]  # The arguments of `requests.Session.send`.


class _NoContent(BaseModel):
    """The empty body of a 204."""


class _CallError(Exception):
    """Status and reason of a call that failed, on their way to `_call`."""


def _call(
    method: str, what: str, url: str, id_: str, token: str, model: type[_Model], payload: Any = None
) -> _Model:
    started = time.monotonic()
    url += "?task_id=" if method == "POST" else "/"
    outcome: int | str = "not sent"
    try:
        bearer = _bearer(token)
        url += _segment(id_)
        body = _body(payload) if method == "PUT" else None
        outcome = "no answer"
        response, answer = _send(_request(method, url, bearer, body))
        outcome = response.status_code
        if outcome != _DOCUMENTED_STATUS[method]:
            raise _refusal(method, what, id_, response, answer)
        return _record(method, answer, model)
    except _CallError as failure:
        status, why = failure.args
    finally:
        milliseconds = (time.monotonic() - started) * 1000
        _logger.debug("%s %s: %s in %.1f ms", method, url, outcome, milliseconds)
    # Raised after the `except`, not within it: a chained exception would hold values.
    detail = f"Error {_VERB[method]} {what}: {_line(why, str(token))}"
    level = logging.WARNING if status >= 500 else logging.INFO
    _logger.log(level, "%s %s: %d %s", method, url, status, detail)
    raise HTTPException(status, detail, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def _line(text: str, token: str) -> str:
    """Make one readable line, and take out a token that is long enough to be a secret."""
    if len(token) >= _SECRET_CHARACTERS:
        text = text.replace(token, "...")
    printable = (char if char.isprintable() else " " for char in text[:_DETAIL_CHARACTERS])
    return " ".join("".join(printable).split())


def _bearer(token: object) -> str:
    if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):  # RFC 6750
        raise _CallError(401, "the access token is not a bearer token")
    return "Bearer " + token


def _segment(id_: object) -> str:
    # Ids come in messages of devices: `DELETE /result/../<uuid>` would delete an exam, and
    # uvicorn decodes `%2F` before it looks for a route. A longer id may be a token.
    text = str(id_) if isinstance(id_, UUID) else id_
    if not isinstance(text, str):
        wrong = f"is of type {_type(text)}, not str"
    elif text in {"", ".", ".."}:
        wrong = f"is {text!r}" if text else "is empty"
    elif len(text) > _ID_CHARACTERS:
        wrong = f"has more than {_ID_CHARACTERS} characters"
    elif unsafe := re.search(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]", text):
        wrong = "contains a /" if unsafe[0] == "/" else "contains a character that cannot be sent"
    else:
        return quote(text, safe="")
    raise _CallError(404, f"the id {wrong}")


def _body(payload: object) -> bytes:
    """Write a payload, and check it as the exam manager will read it."""
    if not isinstance(payload, BaseModel):
        raise _CallError(422, f"the payload is of type {_type(payload)}, not a model")
    fields: Any = None
    try:
        fields = payload.model_dump(by_alias=True, warnings=False)
        text = to_json(fields)  # Of the payload itself, it would write NaN as null.
        read = from_json(text, allow_inf_nan=False)  # NaN is not JSON.
    except Exception as error:  # An object's own code may raise anything.
        raise _CallError(
            422, _misfit(fields) or f"the payload's model_dump raised {type(error).__name__}"
        )
    _validated(type(payload), read, 422)
    return text


def _misfit(value: Any, *place: str) -> str:
    """Name the innermost value that JSON cannot hold, if any, by its place and its type."""
    with suppress(Exception):
        from_json(to_json(value), allow_inf_nan=False)
        return ""
    kind = "NaN or an infinity" if isinstance(value, float) else f"this {_type(value)}"
    parts: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        parts = enumerate(value)
    for key, part in parts if len(place) < 20 else ():
        if misfit := _misfit(part, *place, str(key)):
            return misfit
        if _misfit(key):
            kind = f"this {_type(key)} as a key"
    return f"{'.'.join(place) or 'payload'}: JSON cannot hold {kind}"


def _type(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def _request(method: str, url: str, bearer: str, body: bytes | None) -> PreparedRequest:
    # Filled in by hand: preparing it would take a fifth of a call, and add the session's cookies.
    request = PreparedRequest()
    request.method = method
    request.url = url
    headers = {"Accept": "application/json", "Authorization": bearer}
    if body is not None:
        request.body = body
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request.headers = requests.structures.CaseInsensitiveDict(headers)
    return request


class _Session(requests.Session):
    """A session that follows no redirect and takes nothing from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=0)  # 0 means no limit.
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: Response) -> None:
        """Find no redirect; ``allow_redirects=False`` would still read its body."""


# The last one is in use. A forked process adds its own; closing its parent's may hang.
_sessions = [_Session()]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _sessions.append(_Session()))


def _send(request: PreparedRequest) -> tuple[Response, bytes]:
    """Send a request, and again only where that is safe; return the response and its body."""
    https = str(request.url).lower().startswith("https")
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", "").strip() if https else ""
    how: _How = {"stream": True, "timeout": _STEP_SECONDS, "verify": bundle or True}
    try:
        if request.method in _REPEATABLE:
            try:
                return _exchange(_sessions[-1], request, how)
            except requests.ConnectionError as error:
                if not isinstance(_cause(error), _DROPPED):
                    raise
        # A connection of its own, for the first try of a POST and the second of a GET: the exam
        # manager closes connections that are idle for 5 s, and a request sent just then fails.
        request.headers["Connection"] = "close"
        with _Session() as session:
            return _exchange(session, request, how)
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        raise _unanswered(error, how)


def _exchange(session: _Session, request: PreparedRequest, how: _How) -> tuple[Response, bytes]:
    with session.send(request, **how) as response:
        # Unless it is a record or a refusal, the head is enough. Leaving the rest unread closes the
        # connection: what comes after a 1xx, 204 or 304 must not become the next user's answer.
        if response.status_code not in {200, 201} and not 400 <= response.status_code < 500:
            return response, b"{}"  # For `_NoContent`.
        started = time.monotonic()
        response.raw.decode_content = True  # A proxy may compress unasked.
        answer = bytearray()
        while piece := response.raw.read1(2**20):  # In pieces, to check the limits in between.
            answer += piece
            if len(answer) > _ANSWER_BYTES:
                raise _CallError(502, f"the answer has more than {_ANSWER_BYTES >> 20} MiB")
            limit = min(_ANSWER_SECONDS + len(answer) / _BYTES_PER_SECOND, _LONGEST_SECONDS)
            if time.monotonic() - started > limit:
                raise _CallError(504, f"the answer took longer than {limit:.3g} s")
        return response, bytes(answer) or response.content  # A hook may have read it before.


def _cause(error: BaseException) -> BaseException:
    """Unwrap an error: what requests and urllib3 wrap is the cause, else the last argument."""
    inner = error.__cause__ or (error.args and error.args[-1])
    return _cause(inner) if isinstance(inner, BaseException) else error


def _unanswered(error: Exception, how: _How) -> _CallError:
    """Say why there is no answer, in the words of the system or the library."""
    cause = _cause(error)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    step = f"{how['timeout']:g} s"
    # The narrower errors come first: a time limit is a failed connection, too. One that passes
    # within the body is an error of urllib3 or, in a hook, a ConnectionError: they share a text.
    if isinstance(error, requests.ConnectTimeout) or "handshake operation timed out" in reason:
        return _CallError(504, f"no connection to the exam manager in {step}")
    if isinstance(error, requests.ReadTimeout) or "Read timed out" in str(error):
        return _CallError(504, f"the exam manager sent nothing for {step}")
    if isinstance(cause, (TimeoutError, requests.Timeout)):
        return _CallError(504, f"the request could not be sent in {step}")
    if how["verify"] is not True:
        reason += f" (REQUESTS_CA_BUNDLE is {how['verify']!r})"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return _CallError(503, f"the exam manager broke off its answer: {reason}")
    not_http = isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError)
    if not_http or isinstance(error, urllib3.exceptions.DecodeError):
        return _CallError(502, "the answer cannot be read as HTTP")
    return _CallError(503, f"no connection to the exam manager: {reason}")


def _refusal(method: str, what: str, id_: str, response: Response, body: bytes) -> _CallError:
    """Say what the exam manager answered instead of the documented status."""
    status = response.status_code
    answered = f"the exam manager, or a proxy in front of it, answered {status}"
    if not 400 <= status < 500:
        kind, digits = ("an ObjectId", 24) if what == "sequence" else ("a UUID", 32)
        if status == 500 and not re.fullmatch(rf"(-?[\da-fA-F]){{{digits}}}", str(id_)):
            answered += f"; the id is not {kind}"
        if response.is_redirect:
            with suppress(ValueError):  # A Location may not be a URL.
                target = urlsplit(urljoin(response.url, response.headers["Location"]))
                answered += f", a redirect to {target.scheme}://{target.netloc.rpartition('@')[2]}"
        return _CallError(502, answered)
    why = ""
    with suppress(Exception):  # The body may be anything, such as a proxy's page.
        detail = from_json(body)["detail"]
        # The place of a problem begins with "body", "query" or "path".
        why = detail if isinstance(detail, str) else _problems(detail, 1)
    if why and method == "GET" and status in {400, 422}:
        status = 404  # The documented status of a wrong id.
    return _CallError(status, why or f"{answered} without a detail")


def _record(method: str, answer: bytes, model: type[_Model]) -> _Model:
    """Read the answer to a call that succeeded."""
    try:
        fields = from_json(answer)
    except ValueError:
        raise _CallError(502, "the answer is not JSON")
    if model is AcquisitionTaskOut and isinstance(fields, dict):
        if fields.get("task_type", "ACQUISITION") != "ACQUISITION":  # ScanHub's model takes any.
            raise _CallError(400 if method == "GET" else 502, "it is not an acquisition task")
    return _validated(model, fields, 502, f"the answer is not a valid {model.__name__}: ")


def _validated(model: type[_Model], fields: Any, status: int, before: str = "") -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        why = _problems(error.errors())
    except Exception as error:  # A validator may raise anything.
        why = f"a validator raised {type(error).__name__}"
    raise _CallError(status, before + why)


def _problems(problems: Iterable[Any], skip: int = 0) -> str:
    """Name the wrong fields, with pydantic's reasons, but without any of their values."""
    lines = []
    for problem in problems:
        why = re.sub("^Input tag '.*' found", "Input tag found", problem["msg"], flags=re.DOTALL)
        if problem["type"] in {"value_error", "assertion_error", "uuid_parsing"}:
            why = why.partition(",")[0]  # The rest may quote the value.
        place = ".".join(map(str, problem["loc"][skip:]))
        lines.append(f"{place}: {why}" if place else why)
    return "; ".join(lines)
