"""A batch as its user has it: handlers, callbacks and a consumer work on it, and its end is told to both sides."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_up import Up

pytestmark = pytest.mark.slow

HANDLERS = """
import howdah

@howdah.handler("pages.import")
async def import_page(payload: int, ctx: howdah.Context) -> int:
    if payload == 0:
        # What it finds is more of the same: the batch waits for that too.
        ctx.enqueue("pages", "pages.import", 1, batch=ctx.batch_id)
    return payload

@howdah.handler("pages.report")
async def report(payload: dict, ctx: howdah.Context) -> dict:
    return {"of": str(ctx.completes_batch_id), "counts": payload}
"""


@dataclass
class Receiver:
    """Answers every request with 200, and remembers what it was."""

    url: str = ""
    requests: list[tuple[str | None, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on the loopback."""
    made = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.requests.append((self.headers["howdah-batch"], self.headers["howdah-completes-batch"], body))
            self.send_response(200)
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


@pytest.fixture
def running(up: Callable[..., Up], tmp_path: Path) -> Up:
    """A started `howdah up` with handlers of its user's."""
    (tmp_path / "batch_handlers.py").write_text(HANDLERS)
    return up(HOWDAH_HANDLERS="batch_handlers", PYTHONPATH=str(tmp_path)).started()


def _pull(running: Up, outcome: str) -> Any:
    """Take the one task that waits for a consumer, end it, and return it as it was claimed."""
    claim = {"handlers": ["scan"], "wait": "20s"}
    [run] = running.request("POST", "/v1/queues/scans/claim", claim)["runs"]
    end = {"task_id": run["task_id"], "lease_token": run["lease_token"], "outcome": outcome}
    running.request("POST", "/v1/runs/finish", {"runs": [end | ({"retryable": False} if outcome == "failed" else {})]})
    return run


def test_end_of_a_batch_is_told_to_a_handler_and_a_receiver(running: Up, receiver: Receiver) -> None:
    """Whoever ends the last task, and however it ends; each of the follow-ups comes once, with the counts."""
    opened = running.request(
        "POST",
        "/v1/batches",
        {
            "tasks": [
                {"queue": "pages", "handler": "pages.import", "payload": 0},
                {"queue": "hooks", "http": {"url": receiver.url}, "payload": {"order": 17}},
                {"queue": "scans", "handler": "scan"},
            ],
            "on_complete": {"queue": "pages", "handler": "pages.report"},
            "on_success": {"queue": "hooks", "http": {"url": receiver.url}, "payload": "never"},
            "on_failure": {"queue": "hooks", "http": {"url": receiver.url}},
        },
    )
    path = f"/v1/batches/{opened['batch']['id']}"
    batch_id = opened["batch"]["id"]
    eventually(lambda: running.request("GET", path)["pending"] == 1, 60, "only the consumer's task is left")
    assert running.request("GET", path)["state"] == "running"
    run = _pull(running, "failed")
    batch = running.request("GET", path)
    eventually(lambda: len(receiver.requests) == 2, 60, "the receiver is told")
    [report] = [
        task["id"]
        for task in running.request("GET", "/v1/tasks?handler=pages.report")["data"]
        if task["completes_batch"] == batch_id
    ]
    told = running.request("GET", f"/v1/tasks/{report}/result?wait=20s")["result"]
    members = running.request("GET", f"/v1/tasks?batch={batch_id}")["data"]
    counts = {"batch": batch_id, "tasks": 4, "succeeded": 3, "failed": 1, "cancelled": 0, "expired": 0}

    assert run["batch"] == batch_id
    assert (batch["state"], batch["tasks"], batch["succeeded"], batch["failed"]) == ("complete", 4, 3, 1)
    assert told == {"of": batch_id, "counts": counts}
    assert receiver.requests == [(batch_id, None, {"order": 17}), (None, batch_id, counts)]
    assert sorted(task["state"] for task in members) == ["failed", "succeeded", "succeeded", "succeeded"]


def test_open_batch_is_filled_closed_and_cancelled(running: Up) -> None:
    """Tasks join it until it is closed; a cancel ends those that wait, and so the batch."""
    path = "/v1/batches/" + running.request("POST", "/v1/batches", {"open": True})["batch"]["id"]
    for number in (2, 3):
        task = {"queue": "pages", "handler": "pages.import", "payload": number, "batch": path.rpartition("/")[2]}
        running.request("POST", "/v1/tasks", task)
    running.request("POST", "/v1/tasks", {**task, "delay": "1h"})
    eventually(lambda: running.request("GET", path)["succeeded"] == 2, 60, "two are done")
    assert running.request("GET", path)["state"] == "open"
    assert running.request("POST", f"{path}/close", {})["state"] == "running"
    operation = running.request("POST", f"{path}/cancel", {})
    eventually(lambda: running.request("GET", path)["state"] == "complete", 60, "the batch is complete")
    batch = running.request("GET", path)

    assert (batch["tasks"], batch["succeeded"], batch["cancelled"]) == (3, 2, 1)
    assert running.request("GET", f"/v1/operations/{operation['id']}")["done"] == 1
