# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Measure the six calls beside those of other clients, against a server that does no work.

Whatever the figures are, the benchmark succeeds.
"""

import math
import os
import platform
import random
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import server

# The rounds, and how many times as fast as per call and as httpx ours is to be at least.
CALLS = {
    "get_task": (600, 2.5, 1.1),
    "set_task": (600, 2.3, 1.0),
    "get_sequence, 1 MiB": (200, 2.6, 1.3),
    "get_sequence, 64 MiB": (5, None, None),
    "create_blank_result": (600, 1.3, None),
    "delete_blank_result": (600, 1.3, None),
    "set_result": (600, 2.5, 1.1),
}
THREADS = {8: (11, 2.2, 1.2), 40: (11, 2.2, 1.2)}
# The rounds, and how many times the body ours is to take up at most.
MEMORY = {1: (3, None), 64: (5, 3.1)}

ABOUT = f"""\
A task of {len(server.body(server.TASK))} bytes, over loopback. The clients:
  ours      exam_requests
  per call  requests.get(...) and Model(**response.json()), as ScanHub has it
  httpx     one httpx.Client and Model.model_validate_json(response.content)
Ours is "×" times as fast as they are, or takes up "×" times the body.
"""


def main() -> None:
    """Measure and print, row by row."""
    print(textwrap.fill(machine(), 80), ABOUT, sep="\n")
    os.environ["EXAM_MANAGER_URL"] = server.start()
    import clients

    def medians(row: str, rounds: int, measure: Callable[[str], float]) -> dict[str, float]:
        return take_turns(row, rounds, measure, clients.CLIENTS)

    print_row("Median time of a call", *clients.CLIENTS, "× per call", "× httpx")
    for name, (rounds, *bars) in CALLS.items():
        clients.check(name)
        figures = medians(name, rounds, partial(clients.seconds, name))
        print_row(name, *map(time_of, figures.values()), *speeds(figures, *bars))
    for threads, (rounds, *bars) in THREADS.items():
        row = f"get_task, {threads} threads"
        figures = medians(row, rounds, partial(clients.seconds_in_threads, "get_task", threads))
        rates = (f"{1 / seconds:.0f}/s" for seconds in figures.values())
        print_row(row, *rates, *speeds(figures, *bars))

    print()
    print_row("Growth of peak memory", *clients.CLIENTS, "× the body")
    for mebibytes, (rounds, bar) in MEMORY.items():
        row = f"get_sequence, {mebibytes} MiB"
        figures = medians(row, rounds, partial(clients.peak, row))
        peaks = (f"{peak:.1f} MiB" for peak in figures.values())
        print_row(row, *peaks, at_most(figures["ours"] / mebibytes, bar))


def machine() -> str:
    """Name the processor, and what the clients are made of."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    processor = model[1] if model else platform.processor() or platform.machine()
    packages = ("requests", "urllib3", "httpx", "pydantic")
    return ", ".join(
        (
            f"{processor}, {os.cpu_count()} cores, {platform.system()}",
            f"Python {platform.python_version()}",
            *(f"{package} {version(package)}" for package in packages),
        )
    )


def take_turns(
    row: str, rounds: int, measure: Callable[[str], float], clients: Iterable[str]
) -> dict[str, float]:
    """Measure each client once a round and return the medians.

    The order is random, so that what else the machine does slows all of them alike.
    """
    figures: dict[str, list[float]] = {client: [] for client in clients}
    for done in range(rounds):
        if sys.stdout.isatty() and done % math.ceil(rounds / 20) == 0:
            print(f"{row:21} {done / rounds:9.0%}", end="\r", flush=True)
        for client in random.sample(list(figures), len(figures)):
            figures[client].append(measure(client))
    return {client: median(values) for client, values in figures.items()}


def print_row(name: str, ours: str, per_call: str, httpx: str, *ratios: str) -> None:
    """Print a row of a table, in 80 columns at most."""
    columns = "".join(f"  {ratio:12}" for ratio in ratios)
    print(f"{name:21} {ours:>9} {per_call:>9} {httpx:>9}{columns}".rstrip(), flush=True)


def time_of(seconds: float) -> str:
    """Write a time in three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:#.3g} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def speeds(
    medians: dict[str, float], per_call: float | None, httpx: float | None
) -> tuple[str, str]:
    """Write how many times as fast ours is."""
    return (
        at_least(medians["per call"] / medians["ours"], per_call),
        at_least(medians["httpx"] / medians["ours"], httpx),
    )


def at_least(ratio: float, bar: float | None) -> str:
    """Write a ratio, rounded down, and whether it holds its bar."""
    ratio = math.floor(ratio * 100) / 100
    if bar is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ≥ {bar} ✓" if ratio >= bar else f"{ratio:.2f} < {bar} ✗"


def at_most(ratio: float, bar: float | None) -> str:
    """Write a ratio, rounded up, and whether it holds its bar."""
    ratio = math.ceil(ratio * 100) / 100
    if bar is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ≤ {bar} ✓" if ratio <= bar else f"{ratio:.2f} > {bar} ✗"


if __name__ == "__main__":
    main()
