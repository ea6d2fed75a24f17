# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""An exam manager that does no work, so that the time of a call is the client's."""

import asyncio
import json
import multiprocessing
import re
import socket
from typing import Any, cast

TASK_ID = "5d0c5a3e-6b0f-4c86-9d3a-0a3f6f0c2b11"
RESULT_ID = "c1b7f5de-8f0e-4a57-8c55-2f9d4e3a7b60"
SEQUENCE_ID = {1: "65b9a3c2d1e0f4a5b6c7d801", 64: "65b9a3c2d1e0f4a5b6c7d864"}  # by MiB

AXES = {"x": 1.0, "y": 1.0, "z": 1.0}

TASK = {
    "workflow_id": "0f6a2c1d-94c4-4b63-a1c8-7f3f5f9f1e02",
    "name": "T1",
    "description": "",
    "task_type": "ACQUISITION",
    "destination": "",
    "status": "NEW",
    "progress": 0,
    "is_template": False,
    "position": 0,
    "device_id": "a4e3b0f2-1d5c-4f0e-b7a9-6c2d8e1f3a45",
    "calibration": [],
    "sequence_id": SEQUENCE_ID[1],
    "acquisition_parameter": {"fov_scaling": AXES, "fov_offset": AXES, "fov_rotation": AXES},
    "id": TASK_ID,
    "creator": "ada",
    "datetime_created": "2026-02-03T09:15:00.123456",
    "datetime_updated": None,
    "results": [],
    "acquisition_limits": None,
}

RESULT = {
    "type": "MRD",
    "directory": f"/data/{TASK_ID}",
    "files": ["acquisition.mrd"],
    "meta": {"device": "low-field", "averages": 4, "echo_time": 0.012},
    "task_id": TASK_ID,
    "id": RESULT_ID,
    "datetime_created": "2026-02-03T09:20:00.654321",
}


def sequence(mebibytes: int) -> dict[str, Any]:
    """Make a sequence of this size on the wire: the blocks of a gradient echo, in Pulseq."""
    head = "# Pulseq sequence file\n[VERSION]\nmajor 1\nminor 4\nrevision 1\n\n[BLOCKS]\n"
    repetition = (
        "   1   300    1     0    0    1   0   0\n"
        "   2   122    0     2    3    4   0   0\n"
        "   3   660    0     5    0    0   1   0\n"
        "   4   122    0     6    7    8   0   0\n"
        "   5   796    0     0    0    0   0   0\n"
    )
    return {
        "name": "gradient echo",
        "description": "",
        "sequence_type": "pulseq",
        "tags": ["2D"],
        "_id": SEQUENCE_ID[mebibytes],
        "created_at": "2026-02-01T12:00:00",
        "updated_at": None,
        "seq_file": head + repetition * (mebibytes * 2**20 // len(body(repetition)[1:-1])),
        "seq_file_extension": ".seq",
        "xml_file": None,
        "xml_file_extension": None,
    }


def body(record: object) -> bytes:
    """Write JSON as the exam manager does, without blanks."""
    return json.dumps(record, separators=(",", ":")).encode()


def answer(status: bytes, record: object) -> bytes:
    """Write a whole answer."""
    text = body(record)
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(text)) + text


NOT_FOUND = answer(b"404 Not Found", {"detail": "Not found"})


class Connection(asyncio.Protocol):
    """A kept-alive connection; like its clients, it takes one request after the other."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer, once the request is there as a whole."""
        self.received += data
        head, end, payload = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or length and len(payload) < int(length[1]):
            return
        self.received = b""
        request = head[: head.index(b" HTTP/1.1")].decode()
        self.transport.write(self.answers.get(request, NOT_FOUND))
        if re.search(rb"(?i)\r\nconnection: *close", head):
            self.transport.close()


async def _serve(listener: socket.socket) -> None:
    exam = "/api/v1/exam"
    answers = {
        f"GET {exam}/task/{TASK_ID}": answer(b"200 OK", TASK),
        f"PUT {exam}/task/{TASK_ID}": answer(b"200 OK", TASK),
        f"POST {exam}/result?task_id={TASK_ID}": answer(b"201 Created", RESULT),
        f"PUT {exam}/result/{RESULT_ID}": answer(b"200 OK", RESULT),
        f"DELETE {exam}/result/{RESULT_ID}": b"HTTP/1.1 204 No Content\r\n\r\n",
    }
    for mebibytes, sequence_id in SEQUENCE_ID.items():
        answers[f"GET {exam}/sequence/{sequence_id}"] = answer(b"200 OK", sequence(mebibytes))
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(answers), sock=listener) as server:
        await server.serve_forever()


def _run(listener: socket.socket) -> None:
    asyncio.run(_serve(listener))


def start() -> str:
    """Serve from a process of its own, until this one ends; return the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        multiprocessing.get_context("spawn").Process(
            target=_run, args=(listener,), daemon=True
        ).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
