"""Time the calls against other clients; it succeeds whatever the figures are."""

import asyncio
import os
import platform
import random
import re
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from statistics import median
from timeit import repeat
from typing import Any

import httpx
import requests

ID = "5d0c5a3e-6b0f-4c86-9d3a-0a3f6f0c2b11"
AXES = '{"x":1.0,"y":1.0,"z":1.0}'
RECORDS = {
    "task": f'{{"name":"T1","description":"","task_type":"ACQUISITION","destination":"",'
    f'"status":"NEW","progress":0,"is_template":false,"position":0,"workflow_id":"{ID}",'
    f'"device_id":"{ID}","calibration":[],"sequence_id":"{ID}","results":[],"id":"{ID}",'
    f'"acquisition_parameter":{{"fov_scaling":{AXES},"fov_offset":{AXES},"fov_rotation":{AXES}}},'
    '"creator":"ada","datetime_created":"2026-02-03T09:15:00.123456","datetime_updated":null}',
    "result": '{"type":"MRD","directory":"/data","files":["raw.mrd"],"meta":{"echo_time":0.012},'
    f'"task_id":"{ID}","id":"{ID}","datetime_created":"2026-02-03T09:20:00.654321"}}',
    "sequence": f'{{"_id":"{ID}","name":"T1","description":"","sequence_type":"pulseq",'
    '"created_at":"2026-02-01T12:00:00","seq_file":"%s"}',
}


@cache
def answer(method: str, path: str) -> bytes:
    """Write the whole answer to a request; the id of a sequence is its size in MiB."""
    what, id_ = path.removeprefix("/api/v1/exam/").replace("?", "/").split("/")
    body = RECORDS[what]
    if what == "sequence":
        body %= r"   1   300    1     0    0    1   0   0\n" * ((int(id_) << 20) // 41)
    head = f"HTTP/1.1 {201 if method == 'POST' else 200} OK\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request after the other, without any work: the time is to be the client's."""
    with suppress(EOFError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(answer(*head.split()[:2]))
    writer.close()


def serve(listener: socket.socket) -> None:
    """Serve until the process ends."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(converse, sock=listener))
    loop.run_forever()


if __name__ == "__main__":  # The address is read by the next import.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        os.environ["EXAM_MANAGER_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
        get_context("spawn").Process(target=serve, args=(listener,), daemon=True).start()

import exam_requests as exam  # noqa: E402

TOKEN = "0123456789abcdef" * 32

kept_client = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=100))
session = requests.Session()
session.trust_env = False
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=100))


def clients(method: str, function: Any, id_: str = ID) -> dict[str, Any]:
    """Return a call as each client makes it."""
    what, types = function.__name__.rpartition("_")[2], function.__annotations__
    model = types["return"]
    url = getattr(exam, f"{what.upper()}_URI") + ("?task_id=" if method == "POST" else "/") + id_
    payloads = [types["payload"].model_validate_json(RECORDS[what])] if method == "PUT" else []

    def request(body: str) -> dict[str, Any]:  # As every user has a token, each has its headers.
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        text = payloads[0].model_dump_json() if payloads else None
        return {"method": method, "url": url, "headers": headers, body: text}

    def read(response: Any) -> Any:
        return model.model_validate_json(response.content)

    ready = requests.Request(**request("data")).prepare()
    return {
        "ours": partial(function, id_, *payloads, TOKEN),
        "per call": lambda: model(**requests.request(**request("data"), timeout=10).json()),
        "httpx": lambda: read(kept_client.request(**request("content"))),
        "bare": lambda: read(session.send(ready, timeout=10)),
    }


CALLS = {
    "get_task": clients("GET", exam.get_task),
    "set_task": clients("PUT", exam.set_task),
    "create_blank_result": clients("POST", exam.create_blank_result),
    "set_result": clients("PUT", exam.set_result),
    "get_sequence, 1 MiB": clients("GET", exam.get_sequence, "1"),
    "get_sequence, 64 MiB": clients("GET", exam.get_sequence, "64"),
}


def seconds(calls: int, name: str, client: str) -> float:
    """Time so many calls, one after the other, and return the median."""
    return median(repeat(CALLS[name][client], number=1, repeat=calls))


def in_threads(threads: int, client: str) -> float:
    """Time 400 calls from that many threads at once, and divide by 400."""
    with ThreadPoolExecutor(threads) as pool:
        work = partial(seconds, 400 // threads, "get_task")
        return repeat(lambda: list(pool.map(work, [client] * threads)), number=1, repeat=1)[0] / 400


def growth(name: str, client: str) -> float:
    """Return how many times 64 MiB the first such call adds to the peak memory."""
    peaks = []
    for call in ("get_task", name):
        CALLS[call][client]()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return (peaks[1] - peaks[0]) / (2**26 if platform.system() == "Darwin" else 2**16)


def take_turns(rounds: int, measure: Any, *what: Any) -> list[float]:
    """Measure each client once a round, in random order, and return the medians."""
    figures: dict[str, list[float]] = {client: [] for client in CALLS["get_task"]}
    for _ in range(rounds):
        for client in random.sample(list(figures), len(figures)):
            figures[client].append(measure(*what, client))
    return list(map(median, figures.values()))


if __name__ == "__main__":
    if any(make() != call["ours"]() for call in CALLS.values() for make in call.values()):
        raise RuntimeError("the clients do not return the same result")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{it} {version(it)}" for it in ("requests", "urllib3", "httpx", "pydantic")))
    print(f"\nA task of {len(RECORDS['task'])} bytes          ours   × per call   × httpx  × bare")
    *small, one, large = CALLS
    # In processes of their own: the peak of memory, and whether a large buffer costs page faults,
    # last as long as a process. Not spawned ones, which would inherit the peak of this one.
    with get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:
        rows: list[Any] = [(name, 600, seconds, 1, name) for name in small]
        rows += [(f"get_task, {threads} threads", 5, in_threads, threads) for threads in (8, 40)]
        rows += [(one, 5, lambda *what: pool.apply(seconds, what), 100, one)]
        rows += [(large, 5, seconds, 1, large)]
        for name, *how in rows:
            ours, *others = take_turns(*how)
            ratios = (f"{other / ours:.2f}" for other in others)
            print("{:20} {:9.3f} ms   {:12} {:8} {}".format(name, ours * 1000, *ratios))
        peaks = take_turns(3, lambda *what: pool.apply(growth, what), large)
    print("\nPeak memory, × 64 MiB {:11.2f}   {:<12.2f} {:<8.2f} {:.2f}".format(*peaks))
