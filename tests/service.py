"""A service that answers as documented, counts what arrives, and hangs up early on the idle."""

import json
import socket
from collections import Counter

import uvicorn

from calls import called

arrived = Counter()


async def service(scope, receive, send):
    """Answer one request."""
    while (await receive()).get("more_body"):
        pass
    request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"
    if scope["path"] == "/arrived":
        status, answer = 200, dict(arrived)
    else:
        arrived[request] += 1
        call = called(f"{request} HTTP/1.1".encode())
        status, answer = call.status, call.answer
    body = b"" if answer is None else json.dumps(answer).encode()
    headers = [(b"content-length", b"%d" % len(body))] if body else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        limits = dict(lifespan="off", log_level="critical", timeout_keep_alive=0.01)
        uvicorn.Server(uvicorn.Config(service, **limits)).run([listener])
