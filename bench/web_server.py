"""Web server on loopback that serves a folder by ranges, counts what it sends, and misbehaves on request."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(kw_only=True)
class WebFolder:
    """Folder that is served, and how.

    Attributes:
        folder: the files.
        fault: name of the misbehaviour, "" for none.
        sent: bytes of bodies that were sent.
        requests: number of requests.
        address: of the server.
    """

    folder: Path
    fault: str = ""
    sent: int = 0
    requests: int = 0
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.address}/{name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: WebFolder

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Answer one request."""
        served = self.served
        with served.lock:
            served.requests += 1
            number = served.requests
        fault = served.fault
        path = served.folder / self.path.lstrip("/").partition("?")[0]
        if fault.startswith("redirect ") and not self.path.endswith("?again"):
            self._answer(302, {"Location": fault.removeprefix("redirect ")})
        elif fault == "redirects for ever":
            self._answer(302, {"Location": f"{self.path}x"})
        elif fault == "busy" or (fault == "busy once" and number == 1):
            self._answer(503, {"Retry-After": "3600"})
        elif fault == "hangs":
            time.sleep(3)
        elif not path.is_file():
            self._answer(404, {})
        else:
            self._send(path, fault, number)

    def _send(self, path: Path, fault: str, number: int) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            tag = hashlib.sha256(file.read(1 << 16) + str(path.stat().st_mtime_ns).encode()).hexdigest()[:16]
            if fault == "changes" and number > 4:
                tag = "other"
            headers = {"ETag": f'"{tag}"', "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
            if fault == "no validators":
                headers = {}
            match = _RANGE.fullmatch(self.headers.get("Range", ""))
            if (
                match is None
                or fault in ("no ranges", "no length", "announces too much")
                or (fault == "ranges once" and number > 1)
            ):
                file.seek(0)
                announced = size + 1000 if fault == "announces too much" else size
                headers |= {} if fault == "no length" else {"Content-Length": str(announced)}
                self._answer(200, headers, file.read())
                return
            if "If-Match" in self.headers and self.headers["If-Match"] != f'"{tag}"':
                self._answer(412, {})
                return
            first, last = int(match[1]), min(int(match[2]), size - 1)
            if fault == "short answers" and last - first > 5000:
                last = first + 5000
            shift = 16 if fault == "other range" and number > 1 else 0
            file.seek(first + shift)
            body = file.read(last + 1 - first)
            total = size * (1 + (fault == "other length" and number > 1))
            headers["Content-Range"] = f"bytes {first + shift}-{last + shift}/{total}"
            if fault == "stops" and number > 1:
                headers["Content-Length"] = str(len(body))
                body = body[: len(body) // 2]
            if fault == "long body" and number > 1:
                body += b"more"
            self._answer(206, headers, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        if self.served.fault == "no length" and status == 200:
            self.close_connection = True
            headers["Connection"] = "close"
        elif "Content-Length" not in headers:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        step = 512 if self.served.fault == "slow" else 1 << 18
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                with self.served.lock:
                    self.served.sent += len(body[at : at + step])
                if step == 512:
                    time.sleep(0.05)
        except OSError:
            self.close_connection = True
        if int(headers.get("Content-Length", "0")) != len(body):
            self.close_connection = True


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about clients that close a connection early."""


@contextmanager
def serve(folder: Path, fault: str = "") -> Iterator[WebFolder]:
    """Serve a folder on loopback."""
    served = WebFolder(folder=folder, fault=fault)
    handler = type("Handler", (_Handler,), {"served": served})
    server = _QuietServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
