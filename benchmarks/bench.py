# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Measure the six calls beside those of other clients, against a server that does no work.

The clients take turns, in random order, so that what else the machine does slows
all of them alike. Whatever the figures are, the benchmark succeeds.
"""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import server
from rich.bar import Bar
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

# The rounds, and how many times as fast as per call and as httpx ours is to be.
CALLS = {
    "get_task": (1000, 2.0, 1.0),
    "set_task": (1000, 2.0, 1.0),
    "get_sequence, 1 MiB": (200, 2.0, 1.0),
    "get_sequence, 64 MiB": (7, None, None),
    "create_blank_result": (1000, 1.0, None),
    "delete_blank_result": (1000, 1.0, None),
    "set_result": (1000, 2.0, 1.0),
}
THREADS = {8: (15, 1.8, 1.0), 40: (15, 1.8, 1.0)}
# The rounds, and how many times the body ours may take up.
MEMORY = {1: (3, None), 64: (3, 3.1)}

ABOUT = f"""\
A task of {len(server.body(server.TASK))} bytes, over loopback. The clients:
  ours      exam_requests
  per call  requests.get(...) and Model(**response.json()), as ScanHub has it
  Session   the same through one requests.Session
  httpx     one httpx.Client and Model.model_validate_json(response.content)
  urllib3   one urllib3.PoolManager and Model.model_validate_json(response.data)
Ours is "×" times as fast as they are, or takes up "×" times the body.
"""


def main() -> None:
    """Measure and print."""
    os.environ["EXAM_MANAGER_URL"] = server.start()
    import clients

    console = Console(width=100, highlight=False)
    console.print(machine(), ABOUT, sep="\n")
    times = columns("Median time of a call", clients.CLIENTS, "× per call", "× httpx")
    memory = columns(
        "Growth of a new process' peak memory by a call, in MiB", clients.CLIENTS, "× the body", ""
    )
    with Live(Group(times, "", memory), console=console, auto_refresh=False) as live:
        for name, (rounds, *bars) in CALLS.items():
            medians = clients.times(clients.CALLS[name], rounds)
            times.add_row(name, *map(time_of, medians.values()), *speed(medians, *bars))
            live.refresh()
        for threads, (rounds, *bars) in THREADS.items():
            medians = clients.times_in_threads(clients.CALLS["get_task"], rounds, threads)
            rates = [f"{1 / seconds:.0f}/s" for seconds in medians.values()]
            times.add_row(f"get_task, {threads} threads", *rates, *speed(medians, *bars))
            live.refresh()
        for mebibytes, (rounds, bar) in MEMORY.items():
            name = f"get_sequence, {mebibytes} MiB"
            medians = clients.peaks(name, rounds)
            peaks = [f"{peak:.1f}" for peak in medians.values()]
            ratio = medians["ours"] / mebibytes
            memory.add_row(name, *peaks, verdict(ratio, bar, more=False), "", drawn(ratio))
            live.refresh()
    console.print()


def machine() -> str:
    """Name the processor, and what the clients are made of."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(": ")[2] for line in lines if "model name" in line)
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    packages = ("requests", "urllib3", "httpx", "pydantic")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()}\n"
        f"Python {platform.python_version()}, {versions}"
    )


def columns(title: str, clients: Iterable[str], *ratios: str) -> Table:
    """Begin a table: the figure of each client, the ratios of ours, and one of them drawn."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0)
    )
    table.add_column(width=20)
    for client in clients:
        table.add_column(client, justify="right", min_width=7, no_wrap=True)
    for ratio in ratios:
        table.add_column(ratio, width=12)
    table.add_column("0  1  2  3")
    return table


def time_of(seconds: float) -> str:
    """Write a time in three digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:#.3g} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"


def speed(
    medians: dict[str, float], per_call: float | None, httpx: float | None
) -> tuple[Text, Text, Bar]:
    """Tell how many times as fast ours is."""
    ratio = medians["per call"] / medians["ours"]
    to_httpx = medians["httpx"] / medians["ours"]
    return verdict(ratio, per_call), verdict(to_httpx, httpx), drawn(ratio)


def verdict(ratio: float, bar: float | None, more: bool = True) -> Text:
    """Write a ratio, and whether it holds its bar: at least so much, or less."""
    if bar is None:
        return Text(f"{ratio:.2f}")
    sign = "≥" if ratio >= bar else "<"
    held = (sign == "≥") is more
    return Text(f"{ratio:.2f} {sign} {bar} {'✓' if held else '✗'}", "green" if held else "red")


def drawn(ratio: float) -> Bar:
    """Draw a ratio."""
    return Bar(3, 0, ratio, width=9)


if __name__ == "__main__":
    main()
