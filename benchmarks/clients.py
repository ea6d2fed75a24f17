# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""The calls, the clients that make them, and what is measured of a client.

To be imported once ``EXAM_MANAGER_URL`` is set: `exam_requests` reads it as it is imported.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import httpx
import requests
from pydantic import BaseModel
from server import RESULT, RESULT_ID, SEQUENCE_ID, TASK, TASK_ID

from exam_requests import (
    RESULT_URI,
    SEQUENCE_URI,
    TASK_URI,
    AcquisitionTaskOut,
    MRISequenceOut,
    ResultOut,
    SetResult,
    create_blank_result,
    delete_blank_result,
    get_sequence,
    get_task,
    set_result,
    set_task,
)

TOKEN = "0123456789abcdef" * 32
TIMEOUT = 10

Answer = BaseModel | None


class Call(NamedTuple):
    """A call of ours, and the request that it is."""

    ours: Callable[[], Answer]
    method: str
    url: str
    model: type[BaseModel] | None
    payload: BaseModel | None = None

    def headers(self) -> dict[str, str]:
        """Make the headers; as every user has a token, each call makes its own."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return headers | {"Content-Type": "application/json"} if self.payload else headers

    def body(self) -> str | None:
        """Write the payload."""
        return self.payload.model_dump_json() if self.payload else None


_task = AcquisitionTaskOut.model_validate(TASK)
_task_url = f"{TASK_URI}/{TASK_ID}"
_result = SetResult.model_validate({name: RESULT[name] for name in SetResult.model_fields})
_result_url = f"{RESULT_URI}/{RESULT_ID}"

CALLS = {
    "get_task": Call(partial(get_task, TASK_ID, TOKEN), "GET", _task_url, AcquisitionTaskOut),
    "set_task": Call(
        partial(set_task, TASK_ID, _task, TOKEN), "PUT", _task_url, AcquisitionTaskOut, _task
    ),
    "create_blank_result": Call(
        partial(create_blank_result, TASK_ID, TOKEN),
        "POST",
        f"{RESULT_URI}?task_id={TASK_ID}",
        ResultOut,
    ),
    "delete_blank_result": Call(
        partial(delete_blank_result, RESULT_ID, TOKEN), "DELETE", _result_url, None
    ),
    "set_result": Call(
        partial(set_result, RESULT_ID, _result, TOKEN), "PUT", _result_url, ResultOut, _result
    ),
}
for _mebibytes, _id in SEQUENCE_ID.items():
    CALLS[f"get_sequence, {_mebibytes} MiB"] = Call(
        partial(get_sequence, _id, TOKEN), "GET", f"{SEQUENCE_URI}/{_id}", MRISequenceOut
    )

_httpx = httpx.Client(
    trust_env=False,
    timeout=TIMEOUT,
    # One connection for each thread; by itself, it keeps fewer.
    limits=httpx.Limits(max_keepalive_connections=40, keepalive_expiry=None),
)


def ours(call: Call) -> Answer:
    """Make the call through `exam_requests`."""
    return call.ours()


def per_call(call: Call) -> Answer:
    """Make the call as ScanHub does, on a connection of its own."""
    response = requests.request(
        call.method, call.url, headers=call.headers(), data=call.body(), timeout=TIMEOUT
    )
    response.raise_for_status()
    return call.model(**response.json()) if call.model else None


def by_httpx(call: Call) -> Answer:
    """Make the call through httpx, and read the answer by the shortest way."""
    response = _httpx.request(call.method, call.url, headers=call.headers(), content=call.body())
    response.raise_for_status()
    return call.model.model_validate_json(response.content) if call.model else None


CLIENTS: dict[str, Callable[[Call], Answer]] = {
    "ours": ours,
    "per call": per_call,
    "httpx": by_httpx,
}


def check(name: str) -> None:
    """Raise an error if the clients do not all return the same."""
    expected = per_call(CALLS[name])
    for client, make in CLIENTS.items():
        if make(CALLS[name]) != expected:
            raise RuntimeError(f"{name}: {client} returns something else than per call")


def seconds(name: str, client: str) -> float:
    """Time a call."""
    call, make = CALLS[name], CLIENTS[client]
    started = time.perf_counter()
    make(call)
    return time.perf_counter() - started


def seconds_in_threads(name: str, threads: int, client: str) -> float:
    """Time 400 calls from so many threads at once, as seconds for each of the calls."""
    call, make = CALLS[name], CLIENTS[client]

    def work(calls: int) -> None:
        for _ in range(calls):
            make(call)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [400 // threads] * threads))
    return (time.perf_counter() - started) / 400


def peak(name: str, client: str) -> float:
    """Measure the memory of a call that is the first of its kind in its process, in MiB."""
    # Not "spawn": such a process starts with the peak of this one.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(_growth, name, client).result()


def _growth(name: str, client: str) -> float:
    make = CLIENTS[client]
    make(CALLS["get_task"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    make(CALLS[name])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) / (2**20 if sys.platform == "darwin" else 2**10)
