# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""The calls, the clients that make them, and what is measured of a client.

To be imported once ``EXAM_MANAGER_URL`` is set: `exam_requests` reads it as it is imported.
"""

import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple

import httpx
import requests
import urllib3
from pydantic import BaseModel
from requests.adapters import HTTPAdapter
from server import RESULT, RESULT_ID, SEQUENCE_ID, TASK, TASK_ID, sequence

import exam_requests
from exam_requests import (
    RESULT_URI,
    SEQUENCE_URI,
    TASK_URI,
    AcquisitionTaskOut,
    MRISequenceOut,
    ResultOut,
    SetResult,
)

TOKEN = "0123456789abcdef" * 32
TIMEOUT = 10
CONNECTIONS = 40  # One for each thread; by themselves, the other clients keep fewer.

Answer = BaseModel | None


class Call(NamedTuple):
    """A call of ours, the request that it is, and the record that the server answers with."""

    ours: Callable[[], Answer]
    method: str
    url: str
    model: type[BaseModel] | None
    record: Callable[[], Any]
    payload: BaseModel | None = None

    def headers(self) -> dict[str, str]:
        """Make the headers; as every user has a token, each call makes its own."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return headers | {"Content-Type": "application/json"} if self.payload else headers

    def body(self) -> str | None:
        """Write the payload."""
        return self.payload.model_dump_json() if self.payload else None

    def read(self, text: bytes) -> Answer:
        """Read an answer by the shortest way."""
        return self.model.model_validate_json(text) if self.model else None

    def check(self, answer: Answer) -> None:
        """Raise an error if an answer is not what the server holds."""
        if answer != (self.model.model_validate(self.record()) if self.model else None):
            raise RuntimeError(f"not what the server holds: {self.method} {self.url}")


_task = AcquisitionTaskOut.model_validate(TASK)
_result = SetResult.model_validate({name: RESULT[name] for name in SetResult.model_fields})


def _get_sequence(mebibytes: int) -> Call:
    record_id = SEQUENCE_ID[mebibytes]
    return Call(
        lambda: exam_requests.get_sequence(record_id, TOKEN),
        "GET",
        f"{SEQUENCE_URI}/{record_id}",
        MRISequenceOut,
        lambda: sequence(mebibytes),
    )


CALLS = {
    "get_task": Call(
        lambda: exam_requests.get_task(TASK_ID, TOKEN),
        "GET",
        f"{TASK_URI}/{TASK_ID}",
        AcquisitionTaskOut,
        lambda: TASK,
    ),
    "set_task": Call(
        lambda: exam_requests.set_task(TASK_ID, _task, TOKEN),
        "PUT",
        f"{TASK_URI}/{TASK_ID}",
        AcquisitionTaskOut,
        lambda: TASK,
        _task,
    ),
    "get_sequence, 1 MiB": _get_sequence(1),
    "get_sequence, 64 MiB": _get_sequence(64),
    "create_blank_result": Call(
        lambda: exam_requests.create_blank_result(TASK_ID, TOKEN),
        "POST",
        f"{RESULT_URI}?task_id={TASK_ID}",
        ResultOut,
        lambda: RESULT,
    ),
    "delete_blank_result": Call(
        lambda: exam_requests.delete_blank_result(RESULT_ID, TOKEN),
        "DELETE",
        f"{RESULT_URI}/{RESULT_ID}",
        None,
        lambda: None,
    ),
    "set_result": Call(
        lambda: exam_requests.set_result(RESULT_ID, _result, TOKEN),
        "PUT",
        f"{RESULT_URI}/{RESULT_ID}",
        ResultOut,
        lambda: RESULT,
        _result,
    ),
}

Client = Callable[[Call], Answer]

_session = requests.Session()
_session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
_httpx = httpx.Client(
    trust_env=False,
    timeout=TIMEOUT,
    limits=httpx.Limits(max_keepalive_connections=CONNECTIONS, keepalive_expiry=None),
)
_pool = urllib3.PoolManager(maxsize=CONNECTIONS, timeout=TIMEOUT)


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


def session(call: Call) -> Answer:
    """Make the same call on a connection that is kept."""
    response = _session.request(
        call.method, call.url, headers=call.headers(), data=call.body(), timeout=TIMEOUT
    )
    response.raise_for_status()
    return call.model(**response.json()) if call.model else None


def by_httpx(call: Call) -> Answer:
    """Make the call through httpx."""
    response = _httpx.request(call.method, call.url, headers=call.headers(), content=call.body())
    response.raise_for_status()
    return call.read(response.content)


def by_urllib3(call: Call) -> Answer:
    """Make the call through urllib3, which requests is built on."""
    response = _pool.request(call.method, call.url, headers=call.headers(), body=call.body())
    if response.status >= 400:
        raise RuntimeError(f"{response.status}: {call.method} {call.url}")
    return call.read(response.data)


CLIENTS: dict[str, Client] = {
    "ours": ours,
    "per call": per_call,
    "Session": session,
    "httpx": by_httpx,
    "urllib3": by_urllib3,
}


def take_turns(measure: Callable[[Client], float], rounds: int) -> dict[str, float]:
    """Measure each client once a round, in random order; return the medians."""
    figures: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name in random.sample(list(CLIENTS), len(CLIENTS)):
            figures[name].append(measure(CLIENTS[name]))
    return {name: median(values) for name, values in figures.items()}


def times(call: Call, rounds: int) -> dict[str, float]:
    """Time a call, in seconds."""

    def seconds(client: Client) -> float:
        started = time.perf_counter()
        client(call)
        return time.perf_counter() - started

    for client in CLIENTS.values():
        call.check(client(call))
    return take_turns(seconds, rounds)


def times_in_threads(call: Call, rounds: int, threads: int) -> dict[str, float]:
    """Time 1000 calls from so many threads at once, in seconds for each of the calls."""

    def work(client: Client) -> None:
        for _ in range(1000 // threads):
            client(call)

    def seconds(client: Client) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [client] * threads))
        return (time.perf_counter() - started) / 1000

    return take_turns(seconds, rounds)


def peaks(name: str, rounds: int) -> dict[str, float]:
    """Measure the memory of a call that is the first in its process, in MiB."""
    # Not "spawn": such a process starts with the peak of this one.
    context = multiprocessing.get_context("forkserver")

    def peak(client: Client) -> float:
        with ProcessPoolExecutor(1, context) as process:
            return process.submit(_peak, client, name).result()

    return take_turns(peak, rounds)


def _peak(client: Client, name: str) -> float:
    client(CALLS["get_task"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = client(CALLS[name])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    CALLS[name].check(answer)
    return (after - before) / (2**20 if sys.platform == "darwin" else 2**10)
