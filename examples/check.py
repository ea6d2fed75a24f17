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
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

NAMES = ("EXAM_MANAGER_URL", "EXAM_MANAGER_TIMEOUT", "REQUESTS_CA_BUNDLE")
VALID = r"(?ai)https?://([\w.-]+|\[[\da-f:.]+\])(:[1-9]\d*)?(/(?!api/v1/exam(/|$))[\w.~%-]*)*"
TASK = "/api/v1/exam/task/00000000-0000-0000-0000-000000000000"  # There is no such task.
HEADERS = ("Server", "Via", "Location", "Content-Type", "Content-Encoding", "Age")
# What a fault means, by its words; the first that is found counts. The first word of a fault is
# the heading of docs/operator.md, too.
CAUSES = {
    "is set, but": "a variable has a wrong name, so it is not read",
    "^Settings": "a setting is not valid",
    r"^Name.*\((\d\d|[4-9])\.\d s\)$": "the name servers do not answer",
    "^Name": "the name is wrong, or its container is stopped or on another network",
    "^Connection.* 0.0.0.0": "a filter of names or /etc/hosts leads the name nowhere",
    "^Connection.*refused": "the exam manager is stopped, or listens elsewhere",
    "^Connection.*timed out": "a firewall drops the packets, or the host is off",
    "^Connection": "the network does not lead there",
    "^Certificates": "REQUESTS_CA_BUNDLE does not name a file of certificates",
    "^TLS.*has expired": "a certificate has expired, or the clock here is wrong",
    "^TLS.*not yet valid": "the clock here is wrong, or the exam manager's",
    "^TLS.*mismatch": "the certificate is for other names than that of EXAM_MANAGER_URL",
    "^TLS.*(self-signed|issuer)": "the bundle lacks the authority that signed the certificate",
    "^TLS.*(VERSION_NUMBER|LENGTH)": "the port does not speak https",
    "^TLS": "the two sides do not agree about https",
    "HTTPS port": "the port speaks https, and EXAM_MANAGER_URL says http",
    "^Answer.*(closed connection|reset)": "something accepts connections and closes them",
    "^Answer.*Not auth": "a proxy drops the header Authorization",
    "^Answer.* 200 ": "a web page or a gateway answers, not an exam manager",
    "^Answer.* 30. ": "a proxy wants https, or a sign-in page is in the way: see Location",
    "^Answer.* 401 ": "a proxy asks for a login of its own",
    "^Answer.* 40[45] ": "the path or the port is that of another service",
    "^Answer.* 413 ": "a proxy limits the size of requests",
    "^Answer.* (502|503|504) ": "a proxy answers, and not the exam manager behind it",
    "^Answer.* [45].. ": "something refuses the request before the exam manager",
    "^Answer to a large.*timed out": "packets of full size are lost (MTU), or the line is slow",
    "^Answer.*token.*timed out": "the exam manager or the login service is stuck",
    "^Slow": "the exam manager, the login service or the line is slow",
    "^Clock": "the clock here or that of the other side is wrong",
    "^Files": "a process has no more open files",
}
faults: list[str] = []


def say(text: str, wrong: bool = False) -> None:
    """Print what was found, in ASCII: a character may look like another."""
    print("!!" * wrong or "  ", text.encode("ascii", "backslashreplace").decode(), flush=True)
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


def settings() -> tuple[SplitResult, float, str]:
    """Read the settings as the module does."""
    for name in {*os.environ} - {*NAMES}:
        for near in difflib.get_close_matches(re.sub("[^A-Z]", "_", name.upper()), NAMES, 1, 0.9):
            say(f"Settings: {name!a} is set, but {near} is read", True)
    address, limit, bundle = (os.environ.get(name, "").strip() for name in NAMES)
    for name, value in zip(NAMES, (address, limit, bundle), strict=True):
        text = "a text, no path" if "-----" in value else ascii(re.sub("(?s).*@", "...@", value))
        say(f"{name} is {text if value else 'not set'}")
    address = address or "http://exam-manager:8000"
    with step("Settings") as found:
        url, seconds = urlsplit(address), float(limit or 3)
        if not re.fullmatch(VALID, address):
            raise ValueError("EXAM_MANAGER_URL is not http://HOST:PORT or https://HOST:PORT")
        if not 0 < seconds <= 86400:
            raise ValueError("EXAM_MANAGER_TIMEOUT is no number of seconds up to 86400")
        found += [address, f"limit {seconds:g} s", f"time {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"]
    return url, seconds, bundle


def connect(where: Any, tls: ssl.SSLContext | None = None, host: str = "") -> socket.socket:
    """Connect to an address, over TLS if there is a context."""
    plain = socket.create_connection(where[:2], 3)
    return tls.wrap_socket(plain, server_hostname=host) if tls else plain


def reach(host: str, port: int) -> Any:
    """Look up the name and connect to its addresses; return the first that takes a connection."""
    for file, line in (("/etc/hosts", rf".*\s{re.escape(host)}\b.*"), ("/etc/resolv.conf", "[a-z].*")):
        with suppress(OSError):
            say(f"{file}: {re.findall(f'(?m)^{line}', Path(file).read_text())}")
    with step(f"Name {host!a}") as found:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found += [str(where[0]) for *_, where in infos]
    reached = []
    for *_, where in infos:
        with suppress(SystemExit), step(f"Connection to {where[0]} port {port}") as found:
            with connect(where) as plain:
                found.append(f"from {plain.getsockname()[0]}")
            reached.append(where)
    return reached[0] if reached else sys.exit()


def described(certificate: Any) -> str:
    """Describe a certificate in one line."""
    return re.sub(r"[(){}',]+", " ", str(certificate))


def verify(where: Any, host: str, path: str) -> ssl.SSLContext:
    """Print which certificates are trusted, which is shown, and whether it is trusted."""
    with suppress(ImportError):
        import certifi

        path = path or certifi.where()
    with step(f"Certificates in {path or 'the system'!a}") as found:
        place = {"capath" if os.path.isdir(path) else "cafile": path} if path else {}
        trusting = ssl.create_default_context(**place)  # type: ignore[arg-type]
        found.append(str(trusting.cert_store_stats()))
        found += map(described, trusting.get_ca_certs()[:4])
        if os.path.isdir(path) and not re.search(r"\b[0-9a-f]{8}\.\d\b", str(os.listdir(path))):
            raise ValueError(f"a folder without hashed names: {os.listdir(path)[:9]}")
    showing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    showing.check_hostname = False
    showing.verify_mode = ssl.CERT_NONE
    showing.set_ciphers("DEFAULT:@SECLEVEL=0")
    with suppress(SystemExit), step("Certificate shown") as found:
        with connect(where, showing, host) as secure:
            der = secure.getpeercert(binary_form=True)
        # Python describes a certificate only if it is trusted; 0x200000: whatever the time is.
        showing.load_verify_locations(cadata=der)
        showing.verify_mode = ssl.CERT_REQUIRED
        showing.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | 0x200000
        with connect(where, showing, host) as secure:
            found.append(described(secure.getpeercert()))
    with step("TLS") as found, connect(where, trusting, host) as secure:
        found.append(f"trusted, {secure.version()}")
    return trusting


def answers(url: SplitResult, where: Any, tls: Any, limit: float) -> None:
    """Send four requests."""
    zeros = b'{"name": "' + b"0" * 2**18 + b'"}'
    wrong = {"Authorization": "Bearer " + "x" * 512, "Content-Type": "application/json"}
    for what, expected, method, path, headers, body in (
        ("without a token", "Not authenticated", "GET", TASK, {}, None),
        ("with a wrong token", "Invalid token.", "GET", TASK, wrong, None),
        ("of a large size", "", "GET", f"/api/v1/exam/task/{'0' * 3500}/", {}, None),
        ("to a large request", "", "PUT", TASK, wrong, zeros),
    ):
        started = time.monotonic()
        line = http.client.HTTPConnection(url.hostname or "", url.port or 80)
        with step(f"Answer {what}") as found:
            line.sock = connect(where, tls, url.hostname or "")
            line.sock.settimeout(6)
            with suppress(BrokenPipeError, ConnectionResetError):  # An answer may be there.
                line.request(method, url.path.rstrip("/") + path, body, headers)
            answer = line.getresponse()
            data = answer.read(2**20)
            if answer.headers["Content-Encoding"] in {"gzip", "deflate"}:
                data = zlib.decompress(data, 47)
            found.append(f" {answer.status} {data[:100]!a}")
            found += [f"{name} {answer.headers[name][:100]!a}" for name in HEADERS if name in answer.headers]
            if date := answer.headers["Date"]:
                ahead = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
                found.append(f"clock {ahead:+.0f} s")
            if expected.encode() not in data or answer.status in {413, 502, 503, 504}:
                raise ValueError(", ".join(found))
        if time.monotonic() - started > limit:
            say(f"Slow: more than the limit of {limit:g} s", True)
    if date and abs(ahead) > 60:
        say(f"Clock: {ahead:+.0f} s", True)


def steps() -> None:
    """Go through the steps, until one fails."""
    url, limit, bundle = settings()
    host, https = url.hostname or "", url.scheme == "https"
    where = reach(host, url.port or (443 if https else 80))
    answers(url, where, verify(where, host, bundle) if https else None, limit)


def files() -> None:
    """Name the processes here that have used most of their open files."""
    for limits in Path("/proc").glob("[0-9]*/limits"):
        with suppress(OSError, ValueError, AttributeError):
            used = len(list(limits.with_name("fd").iterdir()))
            limit = int(re.search(r"Max open files\s+(\d+)", limits.read_text())[1])
            if used > 0.8 * limit:
                say(f"Files: process {limits.parent.name} has {used} of {limit} open files", True)


def main() -> int:
    """Go through the steps, and name the likeliest cause."""
    thread = threading.Thread(target=steps, daemon=True)  # A resolver may take a minute.
    thread.start()
    thread.join(27)
    if thread.is_alive():
        say("Slow: not done after 27 s", True)
    files()
    for words, cause in CAUSES.items():
        for fault in faults:
            if re.search(words, fault):
                print(f'\nLikeliest cause: {cause}. See "{fault.split()[0]}" in docs/operator.md')
                return 1
    print("\nAll looks well from here.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
