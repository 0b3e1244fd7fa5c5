"""A receiver of callbacks on loopback, which believes nothing that is not signed."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from howdah.core.errors import SignatureInvalid
from howdah.core.sign import verify

if TYPE_CHECKING:
    from typing import Any

_BODY_BYTES_MAX: Final = 1_048_576
# The attempt from which on /flaky accepts.
FLAKY_ATTEMPT: Final = 3
# How long after its 202 /later reports the outcome.
LATER_S: Final = 2.0


class Receiver:
    """Answers /ok with 200, /flaky with 503 until the third attempt, /gone with 404, /later with 202 and a callback.

    Attributes:
        genuine: Callbacks whose signature was right.
        refused: All others.
    """

    def __init__(self, secret: str) -> None:
        """Verify against a tenant's `whsec_` secret; `start` opens the port."""
        self.genuine = 0
        self.refused = 0
        self._secret = secret
        self._lock = threading.Lock()
        self._server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Listen on a free port of 127.0.0.1 and return the URL."""
        receiver = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                self.answer(receiver)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def judge(self, path: str, headers: Any, body: bytes) -> HTTPStatus:
        """Verify a callback and choose the answer."""
        try:
            verify(
                self._secret,
                message_id=headers.get("webhook-id", ""),
                timestamp=headers.get("webhook-timestamp", ""),
                signature=headers.get("webhook-signature", ""),
                body=body,
                now_s=time.time(),
            )
        except SignatureInvalid:
            with self._lock:
                self.refused += 1
            return HTTPStatus.UNAUTHORIZED
        with self._lock:
            self.genuine += 1
        if path == "/gone":
            return HTTPStatus.NOT_FOUND
        if path == "/later":
            if (url := headers.get("howdah-callback-url")) is not None:
                _call_back(url)
            return HTTPStatus.ACCEPTED
        is_early = path == "/flaky" and int(headers.get("howdah-attempt", "1")) < FLAKY_ATTEMPT
        return HTTPStatus.SERVICE_UNAVAILABLE if is_early else HTTPStatus.OK


def _call_back(url: str) -> None:
    """Report success in a while; whatever that leads to shows in the task's state."""

    def complete() -> None:
        body = b'{"result": {"done": "later"}}'
        request = urllib.request.Request(f"{url}/complete", body, {"Content-Type": "application/json"}, method="POST")
        # If nothing answers, the attempt times out, and is tried again.
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
            pass

    timer = threading.Timer(LATER_S, complete)
    timer.daemon = True
    timer.start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A connection that is kept open and not used must not hold a thread for ever.
    timeout = 60

    def answer(self, receiver: Receiver) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > _BODY_BYTES_MAX:
            self.close_connection = True
            status, body = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b""
        else:
            body = self.rfile.read(length)
            status = receiver.judge(self.path, self.headers, body)
        text = f'{{"status": "{status.phrase}"}}'.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the table shows what was received."""
