# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Handler for exam requests: the device manager's calls to the exam manager.

The functions fetch and update tasks, fetch sequences, and create, set and delete results. Each
takes a user's bearer token, and returns the documented model (or None) or raises
`fastapi.HTTPException`. They block: an ``async def`` handler awaits ``run_in_threadpool``.

====== ===========================================================================================
status what happened
====== ===========================================================================================
400    `get_task`: it is not an acquisition task; `set_task`: its workflow is refused;
       `create_blank_result`: there is no such task
401    the token is not a bearer token (no call), or the exam manager refused it
403    the user may not do this
404    there is no such record, or the id cannot be sent (no call); `get_task` and `get_sequence`:
       also if the exam manager answers 400 or 422
422    the payload is not valid, or JSON cannot hold it (no call)
4xx    any other refusal, and any refusal without a detail, keeps its status
502    the exam manager or a proxy failed (5xx, a redirect, an undocumented 2xx), or its answer is
       not JSON, not the model, not HTTP or more than 96 MiB
503    no connection (refused, unknown host, a certificate, ...), or it ended before the answer did
504    a time limit: 3 s to connect to each address, to send the request, or between two bytes of
       the answer; for the whole answer 10 s, and 1 s more for each 256 KiB of it, 60 s at most
====== ===========================================================================================

``detail`` is one line that says what failed and why (``Error updating task: workflow_id must be an
existing id.``); a 401 has ``WWW-Authenticate: Bearer``. No detail, log record or traceback shows a
token or a value of a payload or an answer, except what the exam manager says about a refusal.

``GET`` and ``PUT`` are sent once more if the connection ended before an answer was there, ``POST``
and ``DELETE`` only once. A call that ended in 502, 503 or 504 may have been carried out.

``EXAM_MANAGER_URL`` is the address, and ``EXAM_MANAGER_TIMEOUT`` the limit for each step, in
seconds, both read on import; ``REQUESTS_CA_BUNDLE`` names the certificates to trust over https.
"""

import http.client
import http.cookiejar
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urljoin, urlsplit
from uuid import UUID

import requests
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import from_json, to_json
from requests import PreparedRequest, Response
from requests.exceptions import ChunkedEncodingError
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError

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
        raise ValueError(f"{name} is {re.sub('(?s).*@', '...@', text)!a}: {error}") from None


def _url(text: str) -> str:
    """Accept only what `urlsplit` leaves as it is, since the text itself is used."""
    if "@" in text:  # Before all else: other errors would show a part of the password.
        raise ValueError("it contains a user name")
    parts = urlsplit(text)  # Like parts.port below, it raises a ValueError of its own for some.
    host = r"([\w-]+(\.[\w-]+)*\.?|\[[\da-f.]*:[\da-f:.]*\])(:\d+)?"  # A name or an IPv6 address.
    for wrong, why in (
        (text[0] in "\"'", "there are quotation marks around it"),
        (not re.match("https?://", text, re.I), "it does not begin with http:// or https://"),
        ("?" in text or "#" in text, "it contains a ? or a #"),
        (parts.netloc.endswith(":") or parts.port == 0, "its port is empty or 0"),
        (not re.fullmatch(host, parts.netloc, re.I), "it has no valid host name"),
        (not re.fullmatch(r"([\w.~/-]|%[\da-fA-F]{2})*", parts.path), "its path is not valid"),
        ("/api/v1/exam/" in f"{parts.path}/", "it contains /api/v1/exam, which is added to it"),
        (not text.isprintable(), "it contains a line break or another invisible character"),
    ):
        if wrong:
            raise ValueError(why)
    return text.rstrip("/")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) <= 86_400:  # The system's calls overflow at 4,294,968.
            return seconds
    raise ValueError("it is not a number of seconds above 0 and up to 86400")


_EXAM_MANAGER: str = _setting("EXAM_MANAGER_URL", "http://exam-manager:8000", _url)

TASK_URI = f"{_EXAM_MANAGER}/api/v1/exam/task"
RESULT_URI = f"{_EXAM_MANAGER}/api/v1/exam/result"
SEQUENCE_URI = f"{_EXAM_MANAGER}/api/v1/exam/sequence"

_STEP_SECONDS: float = _setting("EXAM_MANAGER_TIMEOUT", "3", _seconds)  # For each step: see 504.
_ANSWER_SECONDS = 10.0  # For the answer as a whole, if it is small, ...
_BYTES_PER_SECOND = 2**18  # ... and 1 s more for each this many bytes received, ...
_LONGEST_SECONDS = 60.0  # ... but not longer.
_ANSWER_BYTES = 96 * 2**20
_CONNECTIONS = 100  # More than FastAPI has threads, which are 40.
_ID_CHARACTERS = 128
_SECRET_CHARACTERS = 16  # A shorter token is a test's, and may be an ordinary word.
_DETAIL_CHARACTERS = 500

_logger = logging.getLogger(__name__)


def get_task(task_id: str, user_access_token: str) -> AcquisitionTaskOut:
    """Get an acquisition task: 404 if there is none, 400 if it is of another type.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    user_access_token : str
        Bearer token of the user on whose behalf the call is made.

    Returns
    -------
    AcquisitionTaskOut

    Raises
    ------
    fastapi.HTTPException
        As all of these functions do; its statuses are in the table of the module.
    """
    call = _Call("getting task", "GET", AcquisitionTaskOut, told_as=_BAD_ID, if_other_type=400)
    return _carry_out(call, f"{TASK_URI}/", task_id, user_access_token)


def set_task(
    task_id: str, payload: AcquisitionTaskOut, user_access_token: str
) -> AcquisitionTaskOut:
    """Update a task: 404 if there is none, 400 if its workflow is refused.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    payload : AcquisitionTaskOut
        The whole task: the exam manager resets fields that are left out, and ignores those that
        are its own (``id``, ``creator``, ``results``, ...).
    user_access_token : str

    Returns
    -------
    AcquisitionTaskOut
        The task as the exam manager now holds it.
    """
    call = _Call("updating task", "PUT", AcquisitionTaskOut, AcquisitionTaskOut, if_other_type=502)
    return _carry_out(call, f"{TASK_URI}/", task_id, user_access_token, payload)


def get_sequence(sequence_id: str, user_access_token: str) -> MRISequenceOut:
    """Get a sequence with its files: 404 if there is none.

    Parameters
    ----------
    sequence_id : str
        Id of the sequence, an ObjectId: 24 hexadecimal digits.
    user_access_token : str

    Returns
    -------
    MRISequenceOut
        The sequence; ``seq_file`` and ``xml_file`` hold the text of its files.
    """
    call = _Call("getting sequence", "GET", MRISequenceOut, told_as=_BAD_ID, id_kind=_OBJECT_ID)
    return _carry_out(call, f"{SEQUENCE_URI}/", sequence_id, user_access_token)


def create_blank_result(task_id: str, user_access_token: str) -> ResultOut:
    """Create a result without files, for `set_result` to fill: 400 if there is no such task.

    Parameters
    ----------
    task_id : str
        Id of the task, a UUID.
    user_access_token : str

    Returns
    -------
    ResultOut
        The result, of type ``NOT_SET``.
    """
    call = _Call("creating blank result", "POST", ResultOut, status=201)
    return _carry_out(call, f"{RESULT_URI}?task_id=", task_id, user_access_token)


def delete_blank_result(result_id: str, user_access_token: str) -> None:
    """Delete a result, even one that has files: 404 if there is none.

    Parameters
    ----------
    result_id : str
        Id of the result, a UUID.
    user_access_token : str

    Returns
    -------
    None
    """
    call = _Call("deleting blank result", "DELETE", _NoContent, status=204)
    _carry_out(call, f"{RESULT_URI}/", result_id, user_access_token)


def set_result(result_id: str, payload: SetResult, user_access_token: str) -> ResultOut:
    """Record where the files of a result are, and what they hold: 404 if there is no such result.

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
    """
    call = _Call("updating result", "PUT", ResultOut, SetResult)
    return _carry_out(call, f"{RESULT_URI}/", result_id, user_access_token, payload)


# From here on, what happens to one call, step by step.

_REPEATABLE = {"GET", "PUT"}  # A second POST creates a second result, a second DELETE is a 404.
_DROPPED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
_NOT_HTTP = (http.client.HTTPException, InvalidHeader)
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED|CA certificate bundle|Permission denied|X509|PEM|ASN1"
_OBJECT_ID = ("an ObjectId", 24)
_BAD_ID = {400: 404, 422: 404}  # A GET has no payload: what it is refused for is its id.
_Model = TypeVar("_Model", bound=BaseModel)
_NoContent = create_model("_NoContent")  # It has no fields, so that {} is one.


class _Call(NamedTuple, Generic[_Model]):
    """What the functions below have to know about a call."""

    doing: str  # In a detail: "Error getting task: ...".
    method: str
    returns: type[_Model]
    takes: type[BaseModel] | None = None  # The documented model of its payload.
    status: int = 200  # The documented status.
    told_as: Mapping[int, int] = {}  # Statuses of the exam manager that the caller sees as others.
    if_other_type: int | None = None  # The status if the answer is another type of task.
    id_kind: tuple[str, int] = ("a UUID", 32)  # Its hexadecimal digits; told at a 500.


class _CallError(Exception):
    """Status and reason of a call that failed, on their way to `_carry_out`."""


def _carry_out(call: _Call[_Model], url: str, id_: str, token: str, payload: Any = None) -> _Model:
    started = time.monotonic()
    outcome: int | str = "not sent"
    try:
        url += _quoted(id_)
        body = _body(payload, call.takes) if call.takes else None
        request = _request(call.method, url, token, body)
        outcome = "no answer"
        response, content = _send(call, request)
        outcome = response.status_code
        if outcome != call.status:
            raise _unexpected(call, id_, response, content)
        return _read(call, content)
    except _CallError as failure:
        status, why = failure.args
    finally:
        milliseconds = (time.monotonic() - started) * 1000
        _logger.debug("%s %s: %s in %.1f ms", call.method, url, outcome, milliseconds)
    # Raised after the `except`, not within it: a chained exception would hold values.
    detail = f"Error {call.doing}: {_readable(why, token)}"
    level = logging.WARNING if status >= 500 else logging.INFO
    _logger.log(level, "%s %s: %d %s", call.method, url, status, detail)
    raise HTTPException(status, detail, {"WWW-Authenticate": "Bearer"} if status == 401 else None)


def _readable(text: str, token: object) -> str:
    """Make one line, and take out a token that is long enough to be a secret."""
    if isinstance(token, str) and len(token) >= _SECRET_CHARACTERS:
        text = text.replace(token, "...")
    printable = (char if char.isprintable() else " " for char in text[:_DETAIL_CHARACTERS])
    return " ".join("".join(printable).split())


def _quoted(id_: object) -> str:
    """Write an id as one segment of a path, or as one value of a query."""
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


def _body(payload: object, model: type[BaseModel]) -> bytes:
    """Write a payload as its class does, and check it as the exam manager will read it."""
    if not isinstance(payload, BaseModel):
        raise _CallError(422, f"the payload is of type {_type(payload)}, not a model")
    fields: Any = None
    try:
        fields = payload.model_dump(by_alias=True, warnings=False)
        text, read = _json(fields)  # `model_dump_json` would write NaN as null.
    except Exception as error:  # An object's own code may raise anything.
        why = _unwritable(fields) or f"the payload's model_dump raised {type(error).__name__}"
        raise _CallError(422, why)
    if type(payload) not in model.__mro__[1:]:  # It judges a parent class itself.
        _validated(model, read, 422)
    return text


def _json(value: object) -> tuple[bytes, Any]:
    """Write a value as JSON, and read it back: NaN is written, but is no JSON."""
    text = to_json(value, fallback=os.fspath)  # It knows Path, but not PurePath.
    return text, from_json(text, allow_inf_nan=False)


def _unwritable(value: Any, *place: str) -> str:
    """Name the innermost value that JSON cannot hold, if any, by its place and its type."""
    with suppress(Exception):
        _json(value)
        return ""
    kind = "NaN or an infinity" if isinstance(value, float) else f"this {_type(value)}"
    parts: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        parts = enumerate(value)
    for key, part in parts if len(place) < 20 else ():
        if found := _unwritable(part, *place, str(key)):
            return found
        if _unwritable(key):
            kind = f"this {_type(key)} as a key"
    return f"{'.'.join(place) or 'payload'}: JSON cannot hold {kind}"


def _type(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")


def _request(method: str, url: str, token: object, body: bytes | None) -> PreparedRequest:
    if not isinstance(token, str):
        raise _CallError(401, f"the access token is of type {_type(token)}, not str")
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):  # RFC 6750
        raise _CallError(401, "the access token is not a bearer token")
    headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
    request = PreparedRequest()  # Filled in by hand: to prepare it would take a fifth of a call.
    request.method, request.url, request.body = method, url, body
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request.headers = requests.structures.CaseInsensitiveDict(headers)
    return request


class _Session(requests.Session):
    """A session that takes nothing from the environment, and keeps no cookie."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: Response) -> None:
        """Find no redirect; ``allow_redirects=False`` would still read its body."""


# By process. A server may fork in C (uWSGI does), where no hook of Python runs: the process is
# looked up at each call. A child keeps its parent's sessions, since closing them there may hang.
_sessions: dict[int, _Session] = {}


def _send(call: _Call[_Model], request: PreparedRequest) -> tuple[Response, bytes]:
    """Send a request, and again only where that is safe; return the response and its content."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", "").strip()
    how = {"stream": True, "timeout": _STEP_SECONDS, "verify": bundle or True}
    try:
        if call.method in _REPEATABLE:
            process = os.getpid()
            kept = _sessions.get(process) or _sessions.setdefault(process, _Session(_CONNECTIONS))
            try:
                return _exchange(kept, request, **how)
            except requests.ConnectionError as error:
                if not isinstance(_cause(error), _DROPPED):
                    raise
        # A connection of its own, for each POST and DELETE and for a second try: the exam manager
        # closes connections that are idle for 5 s, and a request that is sent just then fails.
        request.headers["Connection"] = "close"
        with _Session(1) as session:
            return _exchange(session, request, **how)
    except _CallError:
        raise
    except Exception as error:  # Reading a head or a hook may raise anything.
        raise _unanswered(error, how)


def _exchange(session: _Session, request: PreparedRequest, **how: Any) -> tuple[Response, bytes]:
    with session.send(request, **how) as response:
        if response.raw is None:  # A test's own answer.
            return response, response.content or b"{}"
        # Unless it is a record or a refusal, the head is enough. Leaving the rest unread closes the
        # connection: what comes after a 1xx, 204 or 304 must not become the next user's answer.
        if response.status_code not in {200, 201} and not 400 <= response.status_code < 500:
            return response, b"{}"  # Unread: it is valid only as `_NoContent`.
        started = time.monotonic()
        response.raw.decode_content = True  # A proxy may compress unasked.
        content = bytearray()
        while piece := response.raw.read1(2**20):  # In pieces, to check the limits in between.
            content += piece
            if len(content) > _ANSWER_BYTES:
                raise _CallError(502, f"the answer has more than {_ANSWER_BYTES >> 20} MiB")
            limit = min(_ANSWER_SECONDS + len(content) / _BYTES_PER_SECOND, _LONGEST_SECONDS)
            if time.monotonic() - started > limit:
                raise _CallError(504, f"the answer took longer than {limit:.3g} s")
        return response, bytes(content) or response.content  # A hook may have read it before.


def _cause(error: BaseException) -> BaseException:
    """Unwrap an error: what requests and urllib3 wrap is the cause, else the last argument."""
    inner = error.__cause__ or (error.args and error.args[-1])
    return _cause(inner) if isinstance(inner, BaseException) else error


def _unanswered(error: Exception, how: dict[str, Any]) -> _CallError:
    """Say why there is no answer, in the words of the system or the library."""
    cause = _cause(error)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    step = f"{how['timeout']:g} s"
    # The order matters: a time limit, for example, is a failed connection, too.
    if isinstance(error, requests.ConnectTimeout) or "handshake operation timed out" in reason:
        return _CallError(504, f"no connection to the exam manager in {step}")
    if isinstance(error, requests.ReadTimeout) or "Read timed out" in str(error):
        return _CallError(504, f"the exam manager sent nothing for {step}")
    if isinstance(cause, (TimeoutError, requests.Timeout)):
        return _CallError(504, f"the request could not be sent in {step}")
    if isinstance(error, (ProtocolError, ChunkedEncodingError)):  # The latter in a hook.
        return _CallError(503, f"the exam manager broke off its answer: {reason}")
    if isinstance(cause, _DROPPED):
        return _CallError(503, f"the connection ended before an answer: {reason}")
    if "already consumed" in reason:
        return _CallError(502, "a hook has already read the answer")
    if isinstance(cause, _NOT_HTTP) or not isinstance(cause, (OSError, HTTPError)):
        return _CallError(502, "the answer cannot be read as HTTP")
    if type(error) is not requests.ConnectionError and re.search(_CERTIFICATE, reason):
        bundle = "" if how["verify"] is True else how["verify"]
        # Somebody may have put a certificate or a key itself into the variable, in some encoding.
        pasted = "-----" in bundle or len(bundle) >= 64 and not os.path.isabs(bundle)
        shown = "not an absolute path" if pasted else ascii(bundle) if bundle else "not set"
        reason = f"{reason.partition(', invalid path')[0]} (REQUESTS_CA_BUNDLE is {shown})"
    return _CallError(503, f"no connection to the exam manager: {reason}")


def _unexpected(call: _Call[_Model], id_: str, response: Response, content: bytes) -> _CallError:
    """Say what was answered instead of the documented status."""
    status = response.status_code
    answered = f"the exam manager, or a proxy in front of it, answered {status}"
    if not 400 <= status < 500:
        kind, digits = call.id_kind
        if status == 500 and not re.fullmatch(rf"(-?[\da-fA-F]){{{digits}}}", str(id_)):
            answered += f"; the id is not {kind}"
        if response.is_redirect:
            with suppress(ValueError):  # A Location may not be a URL.
                target = urlsplit(urljoin(response.url, response.headers["Location"]))
                answered += f", a redirect to {target.scheme}://{target.netloc.rpartition('@')[2]}"
        return _CallError(502, answered)
    why = ""
    with suppress(Exception):  # The content may be anything, such as a proxy's page.
        detail = from_json(content)["detail"]
        # The place of a problem begins with "body", "query" or "path".
        why = detail if isinstance(detail, str) else _reasons(detail, 1)
    status = call.told_as.get(status, status) if why else status
    return _CallError(status, why or f"{answered} without a detail")


def _read(call: _Call[_Model], content: bytes) -> _Model:
    """Read the answer to a call that succeeded."""
    try:
        fields = from_json(content)
    except ValueError:
        raise _CallError(502, "the answer is not JSON")
    if call.if_other_type and isinstance(fields, dict):  # ScanHub's model takes any type.
        if fields.get("task_type", "ACQUISITION") != "ACQUISITION":
            raise _CallError(call.if_other_type, "it is not an acquisition task")
    before = f"the answer is not a valid {call.returns.__name__}: "
    return _validated(call.returns, fields, 502, before)


def _validated(model: type[_Model], fields: Any, status: int, before: str = "") -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        why = _reasons(error.errors())
    except Exception as error:  # A validator may raise anything.
        why = f"a validator raised {type(error).__name__}"
    raise _CallError(status, before + why)


def _reasons(problems: Iterable[Any], skip: int = 0) -> str:
    """Name the wrong fields, with pydantic's reasons, but without any of their values."""
    lines = []
    for problem in problems:
        why = re.sub("^Input tag '.*' found", "Input tag found", problem["msg"], flags=re.DOTALL)
        if problem["type"] in {"value_error", "assertion_error", "uuid_parsing"}:
            why = why.partition(",")[0]  # The rest may quote the value.
        place = ".".join(map(str, problem["loc"][skip:]))
        lines.append(f"{place}: {why}" if place else why)
    return "; ".join(lines)
