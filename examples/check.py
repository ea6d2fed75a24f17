# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""Find out why calls fail, and change nothing: ``docker exec -i NAME python - <check.py``."""

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
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMES = ("EXAM_MANAGER_URL", "EXAM_MANAGER_TIMEOUT", "REQUESTS_CA_BUNDLE")
ADDRESS, LIMIT, BUNDLE = VALUES = [os.environ.get(name, "").strip() for name in NAMES]
HIDDEN = r"(?s).*@|-----.*|^(?!/)[\w+/=\s]{64,}$"  # A password, or a key instead of its path.
TASK = "/api/v1/exam/task/00000000-0000-0000-0000-000000000000"  # There is no such task.
TOKEN = {"Authorization": "Bearer " + "x" * 512, "Content-Type": "application/json"}  # Nobody's.
CAUSES = {  # What a fault means, by its words; its first word is the heading.
    "^Settings.*(refuse|convert|Port)": "the device manager does not start with these settings",
    "^Name": "the name is not known, or (Temporary failure, or seconds) no name server helps",
    "^Connection.* from": "packets get lost",
    r"^Conn.* to (0\.|127|::1? ).*refused": "this container or host, or (0.0.0.0) a blocked name",
    r"^Connection to \S+:": "there is an IPv6 address, and no way to it",
    "^Connection.*refused": "it is stopped or listens elsewhere, or a firewall rejects the port",
    "^Connection.*(timed out|No route)": "a firewall, a host that is off, or an old address",
    "^Certificate trusted": "REQUESTS_CA_BUNDLE does not name certificates that can be read",
    "^Cert.*(expired|not yet valid)": "a certificate was not renewed, or a clock is wrong",
    "^Cert.*(self-signed|issuer)": "its authority is not trusted, or a proxy shows its own",
    "^Cert.*mismatch": "the certificate is not for the name in EXAM_MANAGER_URL",
    r"\[SSL": "what it says is in the table of words",
    "(pack|handshake).*timed out": "what answers is stuck, or packets of full size get lost (MTU)",
    "wrong token.*Not auth": "a proxy drops the header Authorization, or (Age) a cache answers",
    r"HTTPS port|^Answer without[^:]*: [^t\d]": "the port is https, another service's or nobody's",
    "^Answer.*not as": "what answers fails, or is a proxy, a sign-in page or another service",
    r"^Answer[^:]*: [^t\d]": "what answers, or a firewall before it, cuts off this request",
    "^Answer without": "lost packets, too low a limit, or it is stuck, slow or another service",
    "^Answer with ": "the login service or its database is slow or stuck",
    "^Answer": "the line is slow",
}
faults = ["Name not done (28 s)"]  # Only a name may take so long.


def say(text: str, wrong: bool = False) -> None:
    """Print what was found, in ASCII: a character may look like another."""
    print("!!" if wrong else "  ", text.encode("ascii", "backslashreplace").decode(), flush=True)
    faults.extend([text] * wrong)


@contextmanager
def step(what: str) -> Iterator[list[Any]]:
    """Print what a step found, and its seconds; an error ends the steps."""
    started, found, wrong = time.monotonic(), list[Any](), True
    try:
        yield found
        wrong = time.monotonic() - started > min(1, float(LIMIT or 3))
    except Exception as error:
        found.append(ascii(str(error) or type(error).__name__))
        sys.exit()
    finally:
        text = ", ".join(" ".join(re.findall("[^(){}', ]+", str(item))) for item in found)
        say(f"{what}: {text} ({time.monotonic() - started:.1f} s)", wrong)


def connect(where: Any, tls: ssl.SSLContext | None = None, host: str = "") -> Any:
    """Connect to an address, over TLS if there is a context."""
    plain = socket.create_connection(where[:2], 6)
    return tls.wrap_socket(plain, server_hostname=host) if tls else plain


def steps() -> None:
    """Go through the steps until one fails."""
    for name, value in zip(NAMES, VALUES, strict=True):
        say(f"{name} is {ascii(re.sub(HIDDEN, '...', value)) if value else 'not set'}")
    with step("Settings") as found:
        url = urlsplit(ADDRESS or "http://exam-manager:8000")
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        found += [f"{host} port {port}", f"limit {float(LIMIT or 3):g} s", f"now {formatdate()}"]
        if re.search("[@$]|v1/exam(/|$)", ADDRESS) or not (host and 0 < float(LIMIT or 3) <= 86400):
            raise ValueError("the device manager refuses them")
    for file, lines in {"/etc/hosts": rf".*\s{host}\b.*", "/etc/resolv.conf": "[a-z].*"}.items():
        with suppress(OSError, re.error):
            say(f"{file} says {re.findall(f'(?m)^{lines}', Path(file).read_text())}")
    with step(f"Name {host!a}") as found:
        places = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        found += [where[0] for where in places]
    reached = []
    for where in places:
        what = f"Connection to {where[0]} port {port}"
        with suppress(SystemExit), step(what) as found, connect(where) as plain:
            found.append(f"from {plain.getsockname()[0]}")
            reached.append(where)
    where, tls, bundle, ahead = (reached or sys.exit())[0], None, BUNDLE, 0.0
    if url.scheme == "https":
        with suppress(ImportError):
            bundle = bundle or import_module("certifi").where()
        with step("Certificate trusted") as found:
            folder = os.path.isdir(bundle)
            if folder and not re.search(r"'[0-9a-f]{8}\.\d'", str(os.listdir(bundle))):
                raise ValueError(f"in a folder without hashed names: {os.listdir(bundle)[:9]}")
            tls = ssl.create_default_context(cafile=None if folder else bundle, capath=bundle)
            tls.hostname_checks_common_name = False
            found += [tls.cert_store_stats(), *tls.get_ca_certs()[:3]]
        with suppress(SystemExit), step("Certificate shown") as found:
            pem = ssl.get_server_certificate((host, port), timeout=6)
            showing = ssl.create_default_context(cadata=pem)  # Only what is trusted is described.
            showing.check_hostname = False
            showing.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | 0x200000  # whatever the time
            with connect(where, showing, host) as secure:
                found.append(secure.getpeercert())
        with step("Certificate verified") as found, connect(where, tls, host) as secure:
            found.append(secure.version())
    for what, expected, request in (
        ("without a token", "Not authenticated", ("GET", TASK)),
        ("with a wrong token", "Invalid token.", ("GET", TASK, None, TOKEN)),
        ("in full packets", "", ("GET", f"/api/v1/exam/task/{'0' * 3500}/")),
        ("to a large request", "Invalid token.", ("PUT", TASK, b'"%s"' % (b"0" * 1200000), TOKEN)),
    ):
        with step(f"Answer {what}") as found, connect(where, tls, host) as connected:
            line = http.client.HTTPConnection(host, port)
            line.sock = connected
            line.request(request[0], url.path.rstrip("/") + request[1], *request[2:])
            answer = line.getresponse()
            date = parsedate_to_datetime(answer.headers["Date"] or formatdate())
            ahead = ahead or date.timestamp() - time.time()  # Of the first answer.
            text = answer.read(2**20).decode("latin-1")
            found.append(f"{answer.status} {text[:100]!a}")
            found += [f"{k} {v[:100]!a}" for k, v in answer.headers.items() if "ookie" not in k]
            if expected not in text or answer.status > 499 or answer.headers["Content-Encoding"]:
                raise ValueError("not as an exam manager answers")
    say(f"Clock: that of the exam manager is {ahead:+.0f} s from ours", abs(ahead) > 60)
    faults.pop(0)


if __name__ == "__main__":
    (thread := threading.Thread(target=steps, daemon=True)).start()
    thread.join(28)  # To look up a name may take minutes.
    for name in {*os.environ} - {*NAMES}:
        for near in difflib.get_close_matches(re.sub("[^A-Z]", "_", name.upper()), NAMES, 1, 0.9):
            say(f"Settings: {name!a} is not read, but {near}", True)
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError, ValueError):
            limit = int(Path(folder.parent, "limits").read_text().split("open files")[1].split()[0])
            if (used := len(os.listdir(folder))) > 0.8 * limit:
                say(f"Files: process {folder.parts[2]} has opened {used} of {limit}", True)
    first = "Answer|Connection.* from" if "Answer" in str(faults) else "Answer"
    for fault in [each for each in faults if re.match(first, each)][:1] or faults[-1:]:
        cause = next((CAUSES[words] for words in CAUSES if re.search(words, fault)), fault)
        print(f'Likeliest cause: {cause}. See "{re.split("[: ]", fault)[0]}" in docs/operator.md.')
        sys.exit(1)
    print("All looks well from here.")
