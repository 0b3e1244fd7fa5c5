"""A long-running receiver as its author writes it: with nothing but HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_up import Up

pytestmark = pytest.mark.slow


@dataclass
class Receiver:
    """Answers every request with 202, and remembers where to report the outcome."""

    url: str = ""
    callback_urls: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on the loopback."""
    made = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            made.callback_urls.setdefault(self.headers["webhook-id"], []).append(self.headers["howdah-callback-url"])
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def _post(url: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        with contextlib.closing(refused):
            return refused.code, json.loads(refused.read())


def test_receiver_reports_when_it_is_done(up: Callable[..., Up], receiver: Receiver) -> None:
    """It needs no key and no library: the URL that came with the request ends the task, once, and no log shows it."""
    running = up().started()
    http_target = {"url": receiver.url, "mode": "async", "callback_timeout": "10m"}
    retry = {"initial": "100ms", "jitter": 0}
    done, failing, unwanted = (
        running.request("POST", "/v1/tasks", {"queue": "q", "http": http_target, "payload": {}, "retry": retry})["id"]
        for _ in range(3)
    )

    def state(task: str) -> str:
        return str(running.request("GET", f"/v1/tasks/{task}")["state"])

    eventually(lambda: {state(task) for task in (done, failing, unwanted)} == {"awaiting_callback"}, 60, "all wait")
    [url] = receiver.callback_urls[done]
    beat = _post(f"{url}/heartbeat", {"extend": "1m"})
    completed = [_post(f"{url}/complete", {"result": {"pages": 12}}) for _ in range(2)]
    failed = _post(f"{receiver.callback_urls[failing][0]}/fail", {"error": {"type": "jam", "message": "tray 2"}})
    eventually(lambda: len(receiver.callback_urls[failing]) == 2, 60, "it is delivered again")
    late = _post(f"{receiver.callback_urls[failing][0]}/complete", {})
    eventually(lambda: state(failing) == "awaiting_callback", 60, "the second attempt waits too")
    again = _post(f"{receiver.callback_urls[failing][1]}/complete", {})
    running.request("POST", f"/v1/tasks/{unwanted}/cancel", {"mode": "soft"})
    told = _post(f"{receiver.callback_urls[unwanted][0]}/heartbeat", {})
    shown = running.request("GET", f"/v1/tasks/{done}")
    running.stop()
    logs = "".join(log.read_text() for log in (running.data / "logs").iterdir())

    assert beat[0] == 200
    assert [status for status, _ in completed] == [200, 200]
    assert [answer["status"] for _, answer in completed] == ["ok", "already_finished"]
    assert (shown["state"], shown["result"]) == ("succeeded", {"pages": 12})
    assert (failed[0], failed[1]["outcome"]) == (200, "failed")
    assert (late[0], late[1]["code"]) == (409, "lease_lost")
    assert (again[0], again[1]["outcome"]) == (200, "succeeded")
    assert (told[0], told[1]["code"]) == (409, "cancelled")
    assert "request_answered" in logs
    assert [each for urls in receiver.callback_urls.values() for each in urls if each.rpartition("/")[2] in logs] == []
