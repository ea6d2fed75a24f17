"""Time the calls against other clients; it succeeds whatever the figures are."""

import os
import platform
import random
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from statistics import median
from typing import Any

import httpx
import requests
from requests.adapters import HTTPAdapter
from server import RESULT, RESULT_ID, SEQUENCE_ID, TASK, TASK_ID, serve

if __name__ == "__main__":  # The address is read by the next import.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        os.environ["EXAM_MANAGER_URL"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
        get_context("spawn").Process(target=serve, args=(listener,), daemon=True).start()

import exam_requests as exam  # noqa: E402

ABOUT = f"""\
{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}
{", ".join(f"{name} {version(name)}" for name in ("requests", "urllib3", "httpx", "pydantic"))}
A task of {len(TASK)} bytes, over loopback. "×": how many times as fast ours is as
  per call  requests.get(...) and Model(**response.json()), as ScanHub does
  httpx     one httpx.Client and Model.model_validate_json(response.content)
  bare      a ready request through Session.send: none of our code
"""
TOKEN = "0123456789abcdef" * 32
CLIENTS = ["ours", "per_call", "httpx", "bare"]
BARS = {"GET": ("≥ 1.0", "≥ 0.85"), "PUT": ("≥ 1.0", "≥ 0.7")}  # Against httpx and bare.
ROW = "{:20}  {:12}  {:12}  {:12}  {}".format

kept_client = httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=40))
session = requests.Session()
session.trust_env = False
session.mount("http://", HTTPAdapter(pool_maxsize=0))  # 0 means no limit.


class Call:
    """A call as each of the clients makes it, and what is measured about it."""

    def __init__(self, method: str, uri: str, model: Any, function: Any, *arguments: Any) -> None:
        self.name, self.method, self.model = function.__name__, method, model
        self.url = f"{uri}{'?task_id=' if method == 'POST' else '/'}{arguments[0]}"
        self.payload = arguments[1] if method == "PUT" else None
        self.ready = requests.Request(**self.request("data")).prepare()
        self.ours = partial(function, *arguments, TOKEN)

    def request(self, body: str) -> dict[str, Any]:
        """Make the request; as every user has a token, each call makes its own headers."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        payload = self.payload and self.payload.model_dump_json()
        return {"method": self.method, "url": self.url, "headers": headers, body: payload}

    def per_call(self) -> Any:
        """Make the call as ScanHub does, on a connection of its own."""
        response = requests.request(**self.request("data"), timeout=10)
        response.raise_for_status()
        return self.model and self.model(**response.json())

    def httpx(self) -> Any:
        """Make the call through one client, and read the answer by the shortest way."""
        response = kept_client.request(**self.request("content"))
        response.raise_for_status()
        return self.model and self.model.model_validate_json(response.content)

    def bare(self) -> Any:
        """Send the ready request and read the answer: this runs none of our code."""
        response = session.send(self.ready, timeout=10)
        return self.model and self.model.model_validate_json(response.content)

    def seconds(self, client: str, calls: int = 1) -> float:
        """Time calls, one after the other, and return the time of one."""
        make = getattr(self, client)
        started = time.perf_counter()
        for _ in range(calls):
            make()
        return (time.perf_counter() - started) / calls

    def median_seconds(self, client: str) -> float:
        """Time 100 calls, and return the median."""
        return median(self.seconds(client) for _ in range(100))

    def in_threads(self, threads: int, client: str) -> float:
        """Time 400 calls from that many threads at once, and divide by 400."""
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.seconds, [client] * threads, [400 // threads] * threads))
        return (time.perf_counter() - started) / 400

    def growth(self, client: str) -> float:
        """Return how many MiB the first such call adds to the peak memory."""
        CALLS[0].seconds(client)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.seconds(client)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (after - before) / (2**20 if platform.system() == "Darwin" else 2**10)


task = exam.AcquisitionTaskOut.model_validate_json(TASK)
result = exam.SetResult.model_validate_json(RESULT)
CALLS = [
    Call("GET", exam.TASK_URI, exam.AcquisitionTaskOut, exam.get_task, TASK_ID),
    Call("PUT", exam.TASK_URI, exam.AcquisitionTaskOut, exam.set_task, TASK_ID, task),
    Call("POST", exam.RESULT_URI, exam.ResultOut, exam.create_blank_result, TASK_ID),
    Call("DELETE", exam.RESULT_URI, None, exam.delete_blank_result, RESULT_ID),
    Call("PUT", exam.RESULT_URI, exam.ResultOut, exam.set_result, RESULT_ID, result),
    Call("GET", exam.SEQUENCE_URI, exam.MRISequenceOut, exam.get_sequence, SEQUENCE_ID[1]),
    Call("GET", exam.SEQUENCE_URI, exam.MRISequenceOut, exam.get_sequence, SEQUENCE_ID[64]),
]


def take_turns(rounds: int, measure: Any) -> list[list[Any]]:
    """Measure each client once a round, in random order, so that other work slows all alike."""
    figures: dict[str, list[Any]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client in random.sample(CLIENTS, len(CLIENTS)):
            figures[client].append(measure(client))
    return list(figures.values())


def verdict(ratio: float, bar: str = "") -> str:
    """Write a ratio and, if there is a bar, whether it is met."""
    ratio = round(ratio, 2)
    held = bar and (ratio <= float(bar[1:]) if bar[0] == "≤" else ratio >= float(bar[1:]))
    return f"{ratio:.2f} {'✓' if held else '✗'} {bar}" if bar else f"{ratio:.2f}"


def report(name: str, figures: list[list[float]], httpx: str = "", bare: str = "") -> None:
    """Print the median time of ours, and how many times as fast it is as the others."""
    ours, *others = map(median, figures)
    ratios = map(verdict, (other / ours for other in others), ("", httpx, bare))
    print(ROW(name, f"{ours * 1000:9.3f} ms", *ratios))


def main() -> None:
    """Measure and print, row by row."""
    if any(getattr(call, client)() != call.ours() for call in CALLS for client in CLIENTS):
        raise RuntimeError("the clients do not return the same result")
    print(ABOUT, ROW("Median time", "     ours", "× per call", "× httpx", "× bare"), sep="\n")
    small, large = CALLS[:-2], CALLS[-2:]
    for call in small:
        report(call.name, take_turns(600, call.seconds), *BARS.get(call.method, ()))
    for n in (8, 40):
        report(f"get_task, {n} threads", take_turns(5, partial(CALLS[0].in_threads, n)), "≥ 1.0")
    # Page faults of buffers are decided once per process: each client has five of its own.
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        turns = take_turns(5, lambda client: pool.apply(large[0].median_seconds, (client,)))
    report("get_sequence, 1 MiB", turns, "≥ 1.2")
    report("get_sequence, 64 MiB", take_turns(5, large[1].seconds), "≥ 1.0")
    print("", ROW("Growth of the peak", "ours", "per call", "httpx", "bare"), sep="\n")
    # Not "spawn": a spawned process inherits the peak of this one.
    with get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:
        for call, size, bar in (large[0], 1, ""), (large[1], 64, "≤ 3.2"):
            turns = take_turns(3, lambda client: pool.apply(call.growth, (client,)))
            ours, *others = (median(figures) / size for figures in turns)
            print(ROW(f"× the body of {size} MiB", verdict(ours, bar), *map(verdict, others)))


if __name__ == "__main__":
    main()
