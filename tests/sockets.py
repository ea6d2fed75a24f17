"""A server on real sockets, which answers as a test needs it, also in ways that are wrong."""

import json
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress

from calls import called


class Server(socketserver.ThreadingTCPServer):
    """A server on a loopback port; it notes each request whole, and passes it to `answer`."""

    daemon_threads = True
    request_queue_size = 200

    def __init__(self, answer, wrap=lambda plain: plain, idle_seconds=None):
        super().__init__(("127.0.0.1", 0), None)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests, self.connections = [], 0
        self._answer, self._wrap, self._idle_seconds = answer, wrap, idle_seconds

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def finish_request(self, plain, _):
        with suppress(OSError), self._wrap(plain) as connection:  # Either side may close it.
            while request := receive(connection):
                self.requests.append(request)
                self._answer(connection, request)
                connection.settimeout(self._idle_seconds)


def receive(connection):
    """Receive one request; empty when the client has closed."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (piece := connection.recv(2**16)):
            return b""
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length and (piece := connection.recv(2**16)):
        body += piece
    return head + b"\r\n\r\n" + body


def answer(status, body=None, *headers):
    """Return an answer with a JSON body."""
    text = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(text)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + text


def reply(connection, request):
    """Answer each call as documented."""
    call = called(request)
    connection.sendall(answer(call.status, call.answer))


close = socket.socket.close


def reset(connection):
    """Close a connection with a reset instead of an orderly end."""
    time.sleep(0.05)  # What has been sent is to arrive.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
