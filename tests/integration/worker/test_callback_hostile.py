"""No receiver can hold an attempt beyond its timeout, fill the worker's memory, or confuse its answers."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from howdah_worker.callback_dial import KEEPALIVE_S
from tests.fix_callback import make_context, make_request
from tests.fix_hostile import BEHAVIOURS
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from howdah_worker.callback import CallbackClient
    from tests.fix_hostile import HostileServer

pytestmark = pytest.mark.one_server

TIMEOUT_S = 0.3
# What the error types mean for the next attempt is tested with the pure rules.
NO_ANSWER = {
    "never": "timeout",
    "drip-head": "timeout",
    "close": "connection_lost",
    "half-close": "connection_lost",
    "reset": "connection_lost",
    "reset-in-head": "connection_lost",
    "long-header": "response_invalid",
    "many-headers": "response_invalid",
    "long-reason": "response_invalid",
    "100-forever": "response_invalid",
    "103-forever": "response_invalid",
    "http-0.9": "response_invalid",
    "http-2": "response_invalid",
    "banner": "response_invalid",
    "junk-length": "response_invalid",
    "negative-length": "response_invalid",
    "two-lengths": "response_invalid",
    "status-99999": "response_invalid",
    "status-word": "response_invalid",
    "null-in-header": "response_invalid",
}
# What is kept of a compressed body: the bytes as they came, those of its header that are no text replaced.
GZIP_TEXT = "\x1f\ufffd\x08"
# The status decides; the text is what came of the body, at most 64 bytes.
ANSWERED = {
    "ok": (200, "ok"),
    "ok-without-length": (200, "ok"),
    "early-hints": (200, "ok"),
    "drip-body": (200, None),
    "endless-body": (200, "x" * 64),
    "endless-chunks": (200, "x" * 64),
    "ten-gigabytes": (200, "x" * 64),
    "chunk-extension-forever": (200, ""),
    "trailers-forever": (200, ""),
    "one-byte-chunks": (200, "x" * 64),
    "bad-chunk": (200, ""),
    "junk-encoding": (200, "hello"),
    "short-body": (200, "beginning"),
    "reset-in-body": (200, None),
    "no-content-with-body": (204, ""),
    "gzip-bomb": (200, GZIP_TEXT),
    "gzip-gzip-bomb": (200, GZIP_TEXT),
    "null-in-body": (200, "ab\ufffdc"),
    "switching": (101, ""),
    "early-answer": (413, ""),
    "unasked-with-it": (200, "ok"),
    "unasked-later": (200, "ok"),
}


def test_every_behaviour_is_expected_to_end_somehow() -> None:
    """No behaviour of the hostile receiver is left untested."""
    assert NO_ANSWER.keys() | ANSWERED.keys() == BEHAVIOURS.keys()
    assert not NO_ANSWER.keys() & ANSWERED.keys()


@pytest.mark.parametrize("behaviour", NO_ANSWER)
async def test_deliver_without_answer_ends_in_time_with_its_reason(
    callbacks: CallbackClient, hostile: HostileServer, behaviour: str
) -> None:
    """Whatever comes instead of an answer, the attempt ends, says why, and leaves no connection open."""
    begun = time.monotonic()

    result = await callbacks.deliver(make_request(hostile.url(behaviour), timeout_s=TIMEOUT_S), make_context())

    assert (result.outcome, result.error_type) == ("failed", NO_ANSWER[behaviour])
    assert (result.status, result.response_text) == (None, None)
    assert time.monotonic() - begun < TIMEOUT_S + 1
    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")


@pytest.mark.parametrize("behaviour", ANSWERED)
async def test_deliver_with_answer_ends_in_time_by_its_status(
    callbacks: CallbackClient, hostile: HostileServer, behaviour: str
) -> None:
    """Once the status is known it decides, however the body goes on."""
    body = b"x" * 8_000_000 if behaviour == "early-answer" else b"{}"
    status, text = ANSWERED[behaviour]
    begun = time.monotonic()

    result = await callbacks.deliver(
        make_request(hostile.url(behaviour), body=body, timeout_s=TIMEOUT_S), make_context()
    )

    assert result.status == status
    assert result.outcome == ("succeeded" if 200 <= status < 300 else "failed")
    assert result.response_text is not None
    assert len(result.response_text.encode()) <= 64
    assert text is None or result.response_text == text or (text == GZIP_TEXT and result.response_text.startswith(text))
    assert time.monotonic() - begun < TIMEOUT_S + 1


@pytest.mark.parametrize(
    "behaviour", ["bad-chunk", "short-body", "endless-body", "chunk-extension-forever", "switching"]
)
async def test_deliver_broken_body_does_not_wait_for_the_timeout(
    callbacks: CallbackClient, hostile: HostileServer, behaviour: str
) -> None:
    """A body that cannot become better ends the attempt at once."""
    result = await callbacks.deliver(make_request(hostile.url(behaviour), timeout_s=60), make_context())

    assert result.duration_s < 5
    await eventually_async(lambda: hostile.open_count == 0, 5, "the connection is closed")


@pytest.mark.parametrize("behaviour", ["unasked-with-it", "unasked-later"])
async def test_deliver_unasked_answer_is_not_taken_for_the_next(
    callbacks: CallbackClient, hostile: HostileServer, behaviour: str
) -> None:
    """An answer that nobody asked for ends its connection; the next callback gets its own."""
    await callbacks.deliver(make_request(hostile.url(behaviour)), make_context())
    # Well before the client would close it for having been idle.
    await eventually_async(lambda: hostile.open_count == 0, KEEPALIVE_S / 2, "the connection is closed")

    result = await callbacks.deliver(make_request(hostile.url()), make_context())

    assert (result.status, result.response_text) == (200, "ok")
    assert hostile.connection_count == 2


async def test_deliver_interim_answers_within_reason_are_passed_over(
    callbacks: CallbackClient, hostile: HostileServer
) -> None:
    """Interim answers before the real one are allowed, and counted anew for each request."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    hostile.answers["few"] = interim * 16 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    hostile.answers["many"] = interim * 17 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    few = [await callbacks.deliver(make_request(hostile.url("few")), make_context()) for _ in range(3)]
    many = await callbacks.deliver(make_request(hostile.url("many")), make_context())

    assert [result.status for result in few] == [200, 200, 200]
    assert many.error_type == "response_invalid"


@pytest.mark.slow
async def test_deliver_answer_in_two_segments_is_read_the_same(
    callbacks: CallbackClient, hostile: HostileServer
) -> None:
    """Wherever the network cuts an answer in two, it is read like a whole one."""
    answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello"
    for cut in range(1, len(answer)):
        hostile.answers["hook"] = answer[:cut]
        hostile.writers.clear()
        delivery = asyncio.create_task(callbacks.deliver(make_request(hostile.url("hook")), make_context()))
        await eventually_async(lambda: hostile.writers, 5, "the first part is sent")

        hostile.writers[0].write(answer[cut:])
        result = await delivery

        assert (cut, result.status, result.response_text) == (cut, 201, "hello")


@pytest.mark.slow
async def test_deliver_many_hostile_answers_keeps_memory_and_files(
    callbacks: CallbackClient, hostile: HostileServer
) -> None:
    """A thousand hostile answers leave the worker as large as it was, with as many open files."""
    rng = random.Random(7)
    # Left out are those that last until the timeout, or make the next request on the same connection do so.
    slow = {"never", "drip-head", "drip-body", "early-answer", "unasked-later"}
    behaviours = [each for each in BEHAVIOURS if each not in slow]

    async def deliver(count: int) -> None:
        for _ in range(count):
            request = make_request(hostile.url(rng.choice(behaviours)), timeout_s=5.0)
            await callbacks.deliver(request, make_context())

    await asyncio.gather(*(deliver(20) for _ in range(10)))
    before_bytes, before_files = _resident_bytes(), _open_files()

    await asyncio.gather(*(deliver(100) for _ in range(10)))

    assert _resident_bytes() - before_bytes < 20 * 1024 * 1024
    # Some connections of the last moment are still in the pool, or being closed.
    await eventually_async(lambda: _open_files() <= before_files + 10, 10, "files are closed")


async def test_deliver_flood_does_not_stall_other_deliveries(callbacks: CallbackClient, hostile: HostileServer) -> None:
    """While receivers flood the worker, a callback to a good one is answered as usual."""
    floods = ["100-forever", "103-forever", "chunk-extension-forever", "endless-body", "one-byte-chunks", "long-header"]
    stop = asyncio.Event()

    async def flood(behaviour: str) -> None:
        while not stop.is_set():
            await callbacks.deliver(make_request(hostile.url(behaviour)), make_context())

    flooding = [asyncio.create_task(flood(each)) for each in floods]
    results = [await callbacks.deliver(make_request(hostile.url()), make_context()) for _ in range(20)]
    stop.set()
    await asyncio.gather(*flooding)

    assert {result.outcome for result in results} == {"succeeded"}
    assert max(result.duration_s for result in results) < 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_deliver_random_answers_never_raise(callbacks: CallbackClient, hostile: HostileServer, seed: int) -> None:
    """Whatever bytes come back, there is a result, and it can be stored."""
    rng = random.Random(seed)
    parts = [b"HTTP/1.1 ", b"200", b"204", b"304", b" OK", b"\r\n", b"\r\n\r\n", b"\n", b": ", b"Content-Length"]
    parts += [
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"Content-Encoding: gzip\r\n",
        b"\x00",
    ]
    parts += [
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"Location: \xff\r\n",
        b"Retry-After: 1e9\r\n",
    ]

    for _ in range(40):
        answer = b"".join(rng.choices(parts, k=rng.randrange(12)))
        hostile.answers["hook"] = b"HTTP/1.1 200 OK\r\n" + answer if rng.random() < 0.7 else answer
        result = await callbacks.deliver(make_request(hostile.url("hook"), timeout_s=0.05), make_context())

        assert result.outcome in {"succeeded", "failed"}
        assert result.duration_s < 1
        stored = f"{result.response_text}{result.error_message}"
        assert "\x00" not in stored
        assert stored.encode()


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
