"""Expiry, logs and progress as their users meet them: `howdah up`, handlers of one's own, and HTTP."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_up import Up

pytestmark = pytest.mark.slow

HANDLERS: Final = """
import threading

import howdah

@howdah.handler("render")
def render(pages: int, ctx: howdah.Context) -> int:
    ctx.log("begin", pages=pages)
    for page in range(pages):
        ctx.progress((page + 1) / pages, f"page {page + 1}")
        ctx.log(f"page {page + 1}", level="debug")
        ctx.wait_cancelled(0.2)
    ctx.log("one image was missing", level="warning")
    return pages

@howdah.handler("hold")
async def hold(payload: object, ctx: howdah.Context) -> None:
    ctx.log("holding")
    await ctx.cancellation()
"""


def _events(up: Up, path: str, **headers: str) -> Iterator[tuple[str, str, Any]]:
    """Read a stream: id, event and data of each event, until the server ends it."""
    request = urllib.request.Request(up.url + path, headers={"Authorization": f"Bearer {up.key}", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        fields: dict[str, str] = {}
        for raw in answer:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                if "data" in fields:
                    yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
                fields = {}


@pytest.fixture
def running(up: Callable[..., Up], tmp_path: Path) -> Up:
    """A service with these handlers."""
    (tmp_path / "logging_handlers.py").write_text(HANDLERS)
    return up(PYTHONPATH=str(tmp_path), HOWDAH_HANDLERS="logging_handlers", HOWDAH_DRAIN_S="1").started()


def test_task_is_followed_from_its_first_word_to_its_end(running: Up) -> None:
    """Across a cut, while it runs; then its log and its last progress stay."""
    task = running.request("POST", "/v1/tasks", {"queue": "q", "handler": "render", "payload": 10})
    path = f"/v1/tasks/{task['id']}"
    first = _events(running, f"{path}/logs?follow=true")
    seen = [next(first) for _ in range(3)]
    state_then = running.request("GET", path)["state"]
    first.close()  # type: ignore[attr-defined]
    rest = list(_events(running, f"{path}/logs?follow=true", **{"Last-Event-ID": seen[-1][0]}))
    ended = running.request("GET", path)
    kept = running.request("GET", f"{path}/logs?limit=200")["data"]
    entries = [data for _, event, data in [*seen, *rest] if event == "message"]

    assert state_then == "running"
    assert rest[-1][1:] == ("end", {"state": "succeeded"})
    assert entries == kept
    assert [each["message"] for each in entries if "progress" not in each] == [
        "begin",
        *[f"page {number}" for number in range(1, 11)],
        "one image was missing",
    ]
    assert ended["progress"]["fraction"] == 1.0
    assert [each["message"] for each in running.request("GET", f"{path}/logs?level=warning")["data"]] == [
        "one image was missing"
    ]


def test_stop_does_not_wait_for_who_follows(running: Up) -> None:
    """The stream ends with the process, without saying that the task has ended."""
    task = running.request("POST", "/v1/tasks", {"queue": "q", "handler": "hold"})
    events = _events(running, f"/v1/tasks/{task['id']}/logs?follow=true")
    begun = next(events)
    code = running.stop()

    assert begun[2]["message"] == "holding"
    assert code == 0
    assert list(events) == []


def test_task_that_nobody_takes_in_time_expires(running: Up) -> None:
    """Within a second or two; one beside it that has time runs when it is due."""
    late = running.request("POST", "/v1/tasks", {"queue": "q", "handler": "nobody.has", "expires_in": "500ms"})
    soon = running.request(
        "POST", "/v1/tasks", {"queue": "q", "handler": "render", "payload": 0, "delay": "1s", "expires_in": "1h"}
    )

    def state(task: dict[str, Any]) -> str:
        return str(running.request("GET", f"/v1/tasks/{task['id']}")["state"])

    eventually(lambda: state(late) == "expired", 10, "it has expired")
    eventually(lambda: state(soon) == "succeeded", 15, "the other has run")
    listed = running.request("GET", "/v1/tasks?state=expired")["data"]

    assert [task["id"] for task in listed] == [late["id"]]
    assert [run["outcome"] for run in running.request("GET", f"/v1/tasks/{late['id']}/runs")["data"]] == ["expired"]
