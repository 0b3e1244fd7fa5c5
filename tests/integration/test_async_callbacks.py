"""Long-running receivers: a real worker delivers, a real receiver answers 202, and the real API takes the outcome."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
from http.server import ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.fix_api import Api, serving
from tests.fix_wait import eventually_async
from tests.fix_worker import metric

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator

    import httpx2

    from tests.fix_hostile import HostileServer, Received
    from tests.fix_worker import Workbench

LOOPBACK = (ip_network("127.0.0.0/8"),)
HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "long-running-receivers.md"


@pytest_asyncio.fixture
async def api(bench: Workbench) -> AsyncIterator[Api]:
    """The API on the workbench's database."""
    async with serving(bench.database) as made:
        yield made


@pytest.fixture
def receiver(hostile: HostileServer) -> HostileServer:
    """A receiver that answers /later with 202."""
    hostile.answers["later"] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"
    return hostile


async def _enqueue(bench: Workbench, url: str, count: int = 1, **fields: Any) -> list[uuid.UUID]:
    retry = fields.pop("retry", {})
    item = {"queue": "q", "http": {"url": url, "mode": "async", **fields}, "payload": {"n": 1}, "retry": retry}
    return await bench.enqueue_items([item] * count)


async def _awaiting(bench: Workbench, count: int = 1) -> None:
    async def are_all() -> bool:
        return len(await bench.sql("SELECT 1 FROM howdah.tasks_awaiting_callback")) == count

    await eventually_async(are_all, 60, f"{count} tasks wait for their callbacks")


async def _call(api: Api, request: Received, verb: str, body: Any = None) -> httpx2.Response:
    return await api.post(f"/v1/callbacks/{request.header('Howdah-Callback-Token')}/{verb}", body, key="")


async def test_receiver_reports_the_outcome_when_it_is_done(
    bench: Workbench, api: Api, receiver: HostileServer
) -> None:
    """It gets a token and a URL, answers 202, and ends the task with a result; the worker is not in it any more."""
    worker = await bench.start(callback_allow_cidrs=LOOPBACK, public_url="http://jobs.example.com/base")
    [task] = await _enqueue(bench, receiver.url("later"))
    await _awaiting(bench)
    [request] = receiver.requests
    shown = (await api.get(f"/v1/tasks/{task}")).json()
    await worker.stop()
    answer = await _call(api, request, "complete", {"result": {"pages": 12}})
    row = await bench.ended(task)

    token = request.header("Howdah-Callback-Token")
    assert request.header("Howdah-Callback-Url") == f"http://jobs.example.com/base/v1/callbacks/{token}"
    assert request.header("webhook-signature").startswith("v1,")
    assert shown["state"] == "awaiting_callback"
    assert answer.json() == {"status": "ok", "task_id": str(task), "outcome": "succeeded"}
    assert (row["outcome"], row["result"], row["attempt"]) == ("succeeded", {"pages": 12}, 1)
    assert row["duration_s"] > 0


async def test_receiver_that_the_documentation_shows_works(bench: Workbench, api: Api) -> None:
    """Its code as it is printed ends one task with a result, and gives one up that it cannot do."""
    [printed] = re.findall(r"^```python\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)
    module: dict[str, Any] = {"__name__": "receiver"}
    exec(compile(printed, HOWTO.name, "exec"), module)
    server = ThreadingHTTPServer(("127.0.0.1", 0), module["Receiver"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        await bench.start(callback_allow_cidrs=LOOPBACK, public_url=str(api.client.base_url).rstrip("/"))
        target = {"url": f"http://127.0.0.1:{server.server_address[1]}/", "mode": "async"}
        good, bad = await bench.enqueue_items(
            [{"queue": "q", "http": target, "payload": payload} for payload in ({"pages": 6}, {})]
        )
        done, failed = await bench.ended(good), await bench.ended(bad)
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()

    assert (done["outcome"], done["result"]) == ("succeeded", {"pages": 12})
    assert (failed["outcome"], failed["error"]) == ("failed", {"type": "bad_order", "message": "no 'pages'"})
    assert failed["attempt"] == 1


async def test_without_a_public_url_receivers_get_the_token_alone(bench: Workbench, receiver: HostileServer) -> None:
    """And receivers of other tasks get neither."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    await _enqueue(bench, receiver.url("later"))
    await bench.enqueue_items([{"queue": "q", "http": {"url": receiver.url("ok")}}])
    await eventually_async(lambda: len(receiver.requests) == 2, 10, "both are delivered")
    names = {
        request.line.split(" ")[1]: {name.lower() for name, _ in request.headers if "callback" in name.lower()}
        for request in receiver.requests
    }

    assert names == {"/later": {"howdah-callback-token"}, "/ok": set()}


async def test_callback_from_inside_the_request_is_taken(
    bench: Workbench, api: Api, hostile: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that reports before it answers 202 has ended the task, and the worker's 202 is no late report."""
    stale = metric("howdah_stale_reports_total")
    await bench.start(callback_allow_cidrs=LOOPBACK)
    hostile.answers["later"] = b""  # Its answer comes below, after the callback.
    [task] = await _enqueue(bench, hostile.url("later"))
    await eventually_async(lambda: hostile.writers, 10, "it is delivered")
    answer = await _call(api, hostile.requests[0], "complete")
    hostile.writers[0].write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    row = await bench.ended(task)
    # A later task is recorded after the 202.
    [other] = await bench.enqueue_items([{"queue": "q", "http": {"url": hostile.url("ok")}}])
    await bench.ended(other)

    assert answer.json()["status"] == "ok"
    assert row["outcome"] == "succeeded"
    assert metric("howdah_stale_reports_total") == stale
    assert "late_report_refused" not in caplog.messages
    assert await bench.sql("SELECT 1 FROM howdah.runs") == []


async def test_tasks_that_wait_use_no_slot(bench: Workbench, api: Api, receiver: HostileServer) -> None:
    """A worker with one slot delivers all of them, and is idle then: its stop waits for none."""
    worker = await bench.start(callback_allow_cidrs=LOOPBACK, concurrency=1)
    await _enqueue(bench, receiver.url("later"), 5)
    await _awaiting(bench, 5)
    await worker.stop(timeout_s=5)
    rows = await bench.sql("SELECT outcome FROM howdah.finished_runs")
    answers = [await _call(api, request, "complete") for request in receiver.requests]

    assert rows == []
    assert [answer.json()["status"] for answer in answers] == ["ok"] * 5


async def test_killed_worker_and_restarted_api_lose_no_callback(bench: Workbench, receiver: HostileServer) -> None:
    """After the 202 the worker is needed no more: its lease would have run out, and the outcome is still taken."""
    process = bench.spawn("", HOWDAH_CALLBACK_ALLOW_CIDRS="127.0.0.0/8")
    [task] = await _enqueue(bench, receiver.url("later"))
    await _awaiting(bench)
    process.send_signal(signal.SIGKILL)
    process.wait()
    async with serving(bench.database) as first:
        assert (await _call(first, receiver.requests[0], "heartbeat")).status_code == 200
    [lease] = await bench.sql("SELECT silence_left_s FROM howdah.tasks_awaiting_callback")
    async with serving(bench.database) as second:
        answer = await _call(second, receiver.requests[0], "complete", {"result": "done"})
    row = await bench.ended(task)

    assert lease["silence_left_s"] > 3_000
    assert answer.json()["status"] == "ok"
    assert (row["outcome"], row["result"], row["claim_no"]) == ("succeeded", "done", 1)
    assert len(receiver.requests) == 1


async def test_silent_receiver_is_asked_again(bench: Workbench, api: Api, receiver: HostileServer) -> None:
    """Its attempt times out, the next one brings another token, and only that one ends the task."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    [task] = await _enqueue(bench, receiver.url("later"), callback_timeout="1s", retry={"initial": "0s", "jitter": 0})
    await _awaiting(bench)
    await bench.rescued()
    await eventually_async(lambda: len(receiver.requests) == 2, 10, "it is delivered again")
    late = await _call(api, receiver.requests[0], "complete")
    answer = await _call(api, receiver.requests[1], "complete")
    history = await bench.history(task)

    assert late.status_code == 409
    assert answer.json()["status"] == "ok"
    assert [row["outcome"] for row in history] == ["timed_out", "succeeded"]
    assert history[0]["error"]["type"] == "callback_timeout"
    assert [request.header("Howdah-Fence") for request in receiver.requests] == ["1", "2"]


async def test_heartbeats_keep_a_run_whose_receiver_must_show_itself(
    bench: Workbench, api: Api, receiver: HostileServer
) -> None:
    """As long as it beats nothing times out, and once it does not, much sooner than by the deadline."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    await _enqueue(bench, receiver.url("later"), heartbeat_timeout="1s", retry={"max_attempts": 1})
    await _awaiting(bench)
    beat = await _call(api, receiver.requests[0], "heartbeat", {"extend": "1m"})
    rescued = await bench.rescue()
    await _call(api, receiver.requests[0], "heartbeat")
    await bench.rescued()

    assert beat.status_code == 200
    assert rescued == 0
    assert (await _call(api, receiver.requests[0], "heartbeat")).json()["code"] == "lease_lost"


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "succeeded", 200),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "succeeded", 204),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "failed", 500),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "failed", 404),
    ],
)
async def test_other_answers_count_as_for_other_tasks(
    bench: Workbench, api: Api, hostile: HostileServer, answer: bytes, outcome: str, status: int
) -> None:
    """A receiver that was done at once says so, and one that failed too; the token ends nothing then."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    hostile.answers["now"] = answer
    [task] = await _enqueue(bench, hostile.url("now"), retry={"max_attempts": 1})
    row = await bench.ended(task)
    late = await _call(api, hostile.requests[0], "fail" if outcome == "succeeded" else "complete")

    assert (row["outcome"], row["response_status"]) == (outcome, status)
    assert late.json()["code"] == "lease_lost"


async def test_answer_202_to_a_task_of_the_mode_sync_is_a_success(bench: Workbench, receiver: HostileServer) -> None:
    """As ever."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    [task] = await bench.enqueue_items([{"queue": "q", "http": {"url": receiver.url("later"), "mode": "sync"}}])

    assert (await bench.ended(task))["response_status"] == 202


async def test_202_is_no_success_even_if_the_task_says_so(bench: Workbench, receiver: HostileServer) -> None:
    """`success_statuses` are about outcomes."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    await _enqueue(bench, receiver.url("later"), success_statuses=[202])

    await _awaiting(bench)


async def test_cancel_while_the_request_is_under_way_ends_with_its_202(
    bench: Workbench, api: Api, hostile: HostileServer
) -> None:
    """A soft cancel lets the request end; its 202 then begins no wait that nobody wants."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    hostile.answers["later"] = b""
    [task] = await _enqueue(bench, hostile.url("later"))
    await eventually_async(lambda: hostile.writers, 10, "it is delivered")
    await api.post(f"/v1/tasks/{task}/cancel", {"mode": "soft"})
    hostile.writers[0].write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
    row = await bench.ended(task)

    assert row["outcome"] == "cancelled"
    assert (await _call(api, hostile.requests[0], "complete")).json()["code"] == "cancelled"


async def test_outcomes_of_waiting_runs_are_counted_once(bench: Workbench, api: Api, receiver: HostileServer) -> None:
    """The 202 is no outcome: neither the worker's metrics nor its counts of the queue have it."""
    before = metric("howdah_runs_finished_total", outcome="succeeded")
    awaiting = metric("howdah_runs_finished_total", outcome="awaiting")
    worker = await bench.start(callback_allow_cidrs=LOOPBACK)
    await _enqueue(bench, receiver.url("later"))
    await _awaiting(bench)
    await worker.stop()
    counted = await bench.sql("SELECT 1 FROM howdah.queue_stats WHERE succeeded + failed + retried > 0")
    await _call(api, receiver.requests[0], "complete")

    assert counted == []
    assert metric("howdah_runs_finished_total", outcome="succeeded") == before + 1
    assert metric("howdah_runs_finished_total", outcome="awaiting") == awaiting


async def test_lost_answer_to_the_report_of_a_202_is_made_good(
    bench: Workbench, api: Api, receiver: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Sessions are cut while many are delivered: each is delivered once, and waits, or is delivered again."""
    await bench.start(callback_allow_cidrs=LOOPBACK)
    with caplog.at_level(logging.WARNING):
        await _enqueue(bench, receiver.url("later"), 200)
        cut, left = 0, True
        while cut < 20 and left:
            cut += len(
                await bench.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'howdah-worker' AND datname = current_database() AND query ~ 'run.await'"
                )
            )
            # On a fast disk all may be reported before so many sessions were cut.
            left = bool(await bench.sql("SELECT 1 FROM howdah.runs WHERE awaiting_at IS NULL LIMIT 1"))
        await _awaiting(bench, 200)
    answers = await asyncio.gather(*(_call(api, request, "complete") for request in receiver.requests))
    outcomes = [answer.json().get("status") for answer in answers]

    assert cut > 0
    assert outcomes.count("ok") == 200
    assert await bench.sql("SELECT 1 FROM howdah.runs") == []
