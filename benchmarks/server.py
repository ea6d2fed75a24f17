"""An exam manager that does no work, so that the time of a call is the client's."""

import asyncio
import socket
from functools import cache
from typing import Any

TASK_ID = "5d0c5a3e-6b0f-4c86-9d3a-0a3f6f0c2b11"
RESULT_ID = "c1b7f5de-8f0e-4a57-8c55-2f9d4e3a7b60"
SEQUENCE_ID = {1: "65b9a3c2d1e0f4a5b6c7d801", 64: "65b9a3c2d1e0f4a5b6c7d864"}  # By MiB.
AXES = '{"x":1.0,"y":1.0,"z":1.0}'
TASK = (
    f'{{"workflow_id":"{RESULT_ID}","name":"T1","description":"","task_type":"ACQUISITION",'
    '"destination":"","status":"NEW","progress":0,"is_template":false,"position":0,'
    f'"device_id":"{RESULT_ID}","calibration":[],"sequence_id":"{SEQUENCE_ID[1]}",'
    f'"acquisition_parameter":{{"fov_scaling":{AXES},"fov_offset":{AXES},"fov_rotation":{AXES}}},'
    f'"id":"{TASK_ID}","creator":"ada","datetime_created":"2026-02-03T09:15:00.123456",'
    '"datetime_updated":null,"results":[],"acquisition_limits":null}'
)
RESULT = (
    '{"type":"MRD","directory":"/data","files":["acquisition.mrd"],"meta":{"echo_time":0.012},'
    f'"task_id":"{TASK_ID}","id":"{RESULT_ID}","datetime_created":"2026-02-03T09:20:00.654321"}}'
)
SEQUENCE = (
    f'{{"_id":"{SEQUENCE_ID[1]}","name":"gradient echo","description":"","sequence_type":"pulseq",'
    '"created_at":"2026-02-01T12:00:00","seq_file_extension":".seq","seq_file":"%s"}'
)
BLOCK = r"   1   300    1     0    0    1   0   0\n"  # A line of a Pulseq file, in JSON.


@cache
def answer(request: str) -> bytes:
    """Write the whole answer to a request, the first time that it comes."""
    if request.startswith("DELETE"):
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    status = "201 Created" if request.startswith("POST") else "200 OK"
    record = TASK if "/task/" in request else RESULT
    if "/sequence/" in request:  # Its id ends in its size.
        record = SEQUENCE % (BLOCK * (int(request[-2:]) * 2**20 // len(BLOCK)))
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(record)}"
    return f"{head}\r\n\r\n{record}".encode()


class _Connection(asyncio.Protocol):
    """A kept connection; like its clients, it takes one request after the other."""

    received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, payload = self.received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        if end and len(payload) >= int(length or 0):  # Only now it is there as a whole.
            self.received = b""
            self.transport.write(answer(head.partition(b" HTTP/")[0].decode()))


def serve(listener: socket.socket) -> None:
    """Serve until the process ends."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_server(_Connection, sock=listener))
    loop.run_forever()
