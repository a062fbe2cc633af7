"""What `compress serve` sees of a server, without a model: it answers requests and counts tokens as it is set to.

``STAND_IN`` is ``compresses``, ``plain``, ``keeps-all``, ``ends`` or ``never-ready``; ``STAND_IN_LOG`` a file to which
it writes the signals that it gets.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

KIND = os.environ["STAND_IN"]
LOG = Path(os.environ["STAND_IN_LOG"])
ENCODED = 1000
counted = {"encoded": 0, "kept": 0}


class Answers(BaseHTTPRequestHandler):
    """Answers of the server."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer /health, /v1/models and /metrics."""
        if self.path == "/health":
            self.answer(b"")
        elif self.path == "/v1/models":
            self.answer(json.dumps({"data": [{"id": "stand-in"}]}).encode())
        else:
            lines = [f'compress:video_tokens_total{{state="{state}"}} {float(n)}' for state, n in counted.items()]
            self.answer("\n".join(["# HELP x", "vllm:x 1.0", *(lines if KIND != "plain" else [])]).encode())

    def do_POST(self) -> None:
        """Answer /v1/chat/completions."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["messages"][0]["content"][0]["video_url"]["url"].startswith("data:video/mp4;base64,")
        kept = ENCODED if KIND != "compresses" else 100
        counted["encoded"] += ENCODED
        counted["kept"] += kept
        self.answer(json.dumps({"usage": {"prompt_tokens": kept + 20}}).encode())

    def answer(self, content: bytes) -> None:
        """Send an answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def note(number: int, _: FrameType | None) -> None:
    """Write down a signal; SIGTERM and SIGINT end the server."""
    with LOG.open("a") as file:
        file.write(f"{signal.Signals(number).name}\n")
    if number != signal.SIGHUP:
        # so that the code shows which one it was
        os._exit(40 + number)


if __name__ == "__main__":
    if KIND == "ends":
        sys.exit(7)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, note)
    LOG.write_text(f"pid {os.getpid()}\n")
    if KIND == "never-ready":
        time.sleep(60)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        time.sleep(0.1)
