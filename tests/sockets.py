"""A server on real sockets, which answers as a test needs it, also in ways that are wrong."""

import json
import socket
import struct
import threading
import time

from calls import called


class Server:
    """A server on a loopback port; it notes each request whole, and passes it to `answer`."""

    def __init__(self, answer, wrap=lambda plain: plain):
        self._answer = answer
        self._wrap = wrap
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._open = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests = []
        self.connections = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            close(connection)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection):
        try:
            connection = self._wrap(connection)
            self._open.append(connection)
            while request := receive(connection):
                self.requests.append(request)
                self._answer(connection, request)
        except OSError:
            pass  # The client, or the answer, has closed the connection.
        finally:
            connection.close()


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
    while len(body) < length:
        body += connection.recv(2**16)
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


def close(connection):
    """Close a connection, also under a thread that waits for it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def reset(connection):
    """Close a connection with a reset instead of an orderly end."""
    time.sleep(0.05)  # What has been sent is to arrive.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
