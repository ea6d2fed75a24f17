# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Find out why calls to the exam manager fail: ``docker exec -i NAME python - <check.py``.

It changes nothing, sends no real token and takes half a minute at most. ``!!`` stands before what
is wrong; the last line is the likeliest cause, and the heading of docs/operator.md to read.
"""

import difflib
import http.client
import os
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMES = ("EXAM_MANAGER_URL", "EXAM_MANAGER_TIMEOUT", "REQUESTS_CA_BUNDLE")
TASK = "/api/v1/exam/task/00000000-0000-0000-0000-000000000000"  # There is no such task.
TOKEN = {"Authorization": "Bearer " + "x" * 512, "Content-Type": "application/json"}  # Nobody's.
SHOWN = {"Server", "Via", "Location", "Content-Type", "Content-Encoding", "Age", "Date"}
# What the words of a fault mean. Its first word is its heading in docs/operator.md.
CAUSES = {
    r"^Name.*\((\d\d|[4-9])\.\d s\)": "the name servers do not answer",
    "^Name": "the name is wrong, or its container is stopped or on another network",
    "^Connection to 0.0.0.0": "a filter of names or /etc/hosts leads the name nowhere",
    "^Connection.*refused": "the exam manager is stopped, or listens elsewhere",
    "^Connection.*timed out": "a firewall drops the packets, or the host is off",
    "expired|not yet valid": "a certificate is not renewed, or the clock is wrong here or there",
    "self-signed|issuer": "the authority that signed the certificate is not among the trusted",
    "WRONG_VERSION|RECORD_LAYER": "the port does not speak https",
    "HTTPS port|^Answer without.*(closed|reset)": "the port speaks https, or nothing is behind it",
    "size.*timed out": "packets of full size are lost (MTU), or the line is slow",
    "^Answer.*timed out": "the exam manager or the login service is stuck",
    "wrong token.*Not auth": "a proxy drops the header Authorization",
    "^Answer.* 30. ": "a proxy wants https, or a sign-in page is in between: see Location",
    "^Answer.* 50[234] ": "a proxy answers, and not the exam manager behind it",
    "^Answer": "not the exam manager answers, but something else",
}
faults: list[str] = []


def say(text: str, wrong: bool = False) -> None:
    """Print what was found, in ASCII: a character may look like another."""
    print("!!" if wrong else "  ", text.encode("ascii", "backslashreplace").decode(), flush=True)
    faults.extend([text] * wrong)


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Print what a step found, and its seconds; an error ends the steps."""
    started, found = time.monotonic(), list[str]()
    try:
        yield found
    except (OSError, ValueError, http.client.HTTPException) as error:
        say(f"{what}: {error or type(error).__name__} ({time.monotonic() - started:.1f} s)", True)
        sys.exit()
    say(f"{what}: {', '.join(found)} ({time.monotonic() - started:.1f} s)")


def connect(where: Any, tls: ssl.SSLContext | None = None, host: str = "") -> Any:
    """Connect to an address, over TLS if there is a context."""
    plain = socket.create_connection(where[:2], 3)
    return tls.wrap_socket(plain, server_hostname=host) if tls else plain


def described(certificate: Any) -> str:
    """Describe a certificate in one line."""
    return re.sub(r"[(){}',:]+ *", " ", str(certificate))


def trusted(where: Any, host: str, path: str) -> ssl.SSLContext:
    """Print which certificates are trusted, which is shown, and whether it is trusted."""
    with suppress(ImportError):
        import certifi

        path = path or certifi.where()
    with step(f"Certificates in {path!a}") as found:
        folder = os.path.isdir(path)
        context = ssl.create_default_context(**{"capath" if folder else "cafile": path or None})
        found += [str(context.cert_store_stats()), *map(described, context.get_ca_certs()[:3])]
        if folder and not re.search(r"\b[0-9a-f]{8}\.\d\b", str(os.listdir(path))):
            raise ValueError(f"it is a folder without hashed names: {os.listdir(path)[:9]}")
    with suppress(SystemExit), step("Certificate shown") as found:
        pem = ssl.get_server_certificate((host, where[1]), timeout=3)
        showing = ssl.create_default_context(cadata=pem)  # What is not trusted is not described.
        showing.check_hostname = False
        showing.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | 0x200000  # whatever the time is
        with connect(where, showing, host) as secure:
            found.append(described(secure.getpeercert()))
    with step("Certificate verified") as found, connect(where, context, host) as secure:
        found.append(str(secure.version()))
    return context


def steps() -> None:
    """Go through the steps until one fails."""
    for limits in Path("/proc").glob("[0-9]*/limits"):
        with suppress(OSError, ValueError):
            used = len(os.listdir(limits.with_name("fd")))
            limit = int(limits.read_text().partition("Max open files")[2].split()[0])
            if used > 0.8 * limit:
                say(f"Files: process {limits.parts[2]} has opened {used} of {limit}", True)
    for name in {*os.environ} - {*NAMES}:
        for near in difflib.get_close_matches(re.sub("[^A-Z]", "_", name.upper()), NAMES, 1, 0.9):
            say(f"Settings: {name!a} is not read, but {near}", True)
    address, seconds, bundle = values = [os.environ.get(name, "").strip() for name in NAMES]
    for name, value in zip(NAMES, values, strict=True):
        text = "a text, no path" if "-----" in value else ascii(re.sub("(?s).*@", "...@", value))
        say(f"{name} is {text if value else 'not set'}")
    with step("Settings") as found:
        url = urlsplit(address or "http://exam-manager:8000")
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        if not url.scheme.startswith("http") or not host:
            raise ValueError("EXAM_MANAGER_URL is not http://HOST:PORT or https://HOST:PORT")
        found += [f"{host!a} port {port}", f"limit {float(seconds or 3)} s", f"now {formatdate()}"]

    for file, lines in {"/etc/hosts": rf".*\s{host}\b.*", "/etc/resolv.conf": "[a-z].*"}.items():
        with suppress(OSError):
            say(f"{file} says {re.findall(f'(?m)^{lines}', Path(file).read_text())}")
    with step(f"Name {host!a}") as found:
        places = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        found += [str(where[0]) for where in places]
    reached = []
    for where in places:
        with suppress(SystemExit), step(f"Connection to {where[0]} port {port}") as found:
            with connect(where) as plain:
                found.append(f"from {plain.getsockname()[0]}")
            reached.append(where)
    if not reached:
        return
    tls = trusted(reached[0], host, bundle) if url.scheme == "https" else None

    large = b'{"name": "' + b"0" * 2**18 + b'"}'
    for what, expected, method, path, headers, body in (
        ("without a token", "Not authenticated", "GET", TASK, {}, None),
        ("with a wrong token", "Invalid token.", "GET", TASK, TOKEN, None),
        ("of full size", "", "GET", f"/api/v1/exam/task/{'0' * 3500}/", {}, None),
        ("to a request of large size", "", "PUT", TASK, TOKEN, large),
    ):
        started = time.monotonic()
        with step(f"Answer {what}") as found:
            line = http.client.HTTPConnection(host, port)
            line.sock = connect(reached[0], tls, host)
            line.sock.settimeout(6)
            with suppress(BrokenPipeError, ConnectionResetError):  # An answer may be there.
                line.request(method, url.path.rstrip("/") + path, body, headers)
            answer = line.getresponse()
            text = answer.read(2**20).decode("latin-1")
            found += [f" {answer.status} {text[:100]!a}"]
            found += [f"{k} {v[:100]!a}" for k, v in answer.headers.items() if k.title() in SHOWN]
            if expected not in text or answer.status > 499 or answer.status == 413:
                raise ValueError(", ".join(found))
        if time.monotonic() - started > float(seconds or 3):
            say("Slow: this is more than the limit", True)
    if sent := answer.headers["Date"]:
        ahead = parsedate_to_datetime(sent).timestamp() - time.time()
        say(f"Clock: the other is {ahead:+.0f} s ahead", abs(ahead) > 60)


def main() -> int:
    """Name the likeliest cause."""
    thread = threading.Thread(target=steps, daemon=True)  # To look up a name may take minutes.
    thread.start()
    thread.join(28)
    if thread.is_alive():
        say("Slow: not done after 28 s", True)
    if not faults:
        print("All looks well from here.")
        return 0
    cause = next((CAUSES[words] for words in CAUSES if re.search(words, faults[0])), faults[0])
    print(f'Likeliest cause: {cause}. See "{faults[0].split(maxsplit=1)[0]}" in docs/operator.md.')
    return 1


if __name__ == "__main__":
    sys.exit(main())
