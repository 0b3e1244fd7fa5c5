"""What handlers logged of a task: page by page, or as server-sent events while it is being logged."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from howdah.api import shapes
from howdah.api.call import Answer, Stream, json_answer
from howdah.api.followers import Follower
from howdah.api.paging import bad_parameter, limit_of, query, read_cursor, write_cursor
from howdah.api.task_view import log_entry_of
from howdah.api.tasks import id_of, no_task
from howdah.core.entries import LEVELS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from howdah.api.call import Call

PARAMETERS: Final = ("level", "limit", "cursor", "follow")

# Proxies close what is silent; nginx.conf allows 35 s.
HEARTBEAT_S: Final = 15.0
# A key may be revoked meanwhile: whoever follows for longer comes back with it, which browsers do by themselves.
STREAM_S_MAX: Final = 600.0
# How soon a client that was cut off comes back.
RETRY_MS: Final = 1_000

_POSITION: Final = struct.Struct("!iI")
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # Or nginx would keep events until it has a bufferful.
    (b"x-accel-buffering", b"no"),
]

_encode: Final = msgspec.json.Encoder().encode


async def list_page(call: Call) -> Answer | Stream:
    """List what handlers logged of a task, oldest first.

    With `follow=true` the answer is a stream of server-sent events (`text/event-stream`), one for each entry, from
    the first on or behind `cursor`: its `id` is a cursor, which browsers send back as `Last-Event-ID`, so that a
    stream goes on where it was cut off. When the task has ended and all was sent, an event `end` says its state.
    """
    parameters = query(call, PARAMETERS)
    limit = limit_of(parameters)
    follow = parameters.pop("follow", "false")
    if follow not in ("true", "false"):
        raise bad_parameter("follow", "must be true or false")
    last_id = call.headers.get(b"last-event-id")
    if follow == "true" and last_id is not None:
        parameters["cursor"] = last_id.decode("latin-1")
    level = LEVELS.get(parameters.get("level", "debug"))
    if level is None:
        raise bad_parameter("level", f"must be one of {', '.join(LEVELS)}")
    after = _position(read_cursor(call, parameters))
    task_id = id_of(call)
    backend, tenant_id = call.backend, call.key.tenant_id
    async with backend.database.connection() as conn:
        page = backend.task_logs.page
        rows = await page(conn, tenant_id, task_id, after=after, level=level, row_count=limit)
        if not rows and await backend.tasks.get(conn, tenant_id, task_id) is None:
            raise no_task(task_id)
    if follow == "true" and call.scope["method"] == "GET":
        call.route += "?follow"
        return _stream(call, parameters, Follower(tenant_id, task_id, after, level))
    data = [log_entry_of(row, reads_payloads=call.key.reads_payloads) for row in rows]
    cursor = _cursor(call, parameters, rows[-1]) if len(rows) == limit else None
    return json_answer(200, shapes.LogPage(data, cursor))


def _stream(call: Call, parameters: dict[str, str], follower: Follower) -> Stream:
    followers = call.backend.followers
    followers.add(follower)
    return Stream(200, _HEADERS, _events(call, parameters, follower), lambda: followers.remove(follower))


async def _events(call: Call, parameters: dict[str, str], follower: Follower) -> AsyncIterator[bytes]:
    """Write events until the task has ended, or the stream has lasted long enough."""
    until = time.monotonic() + STREAM_S_MAX
    yield b"retry: %d\n\n" % RETRY_MS
    while not follower.is_over and time.monotonic() < until:
        if not await follower.news(HEARTBEAT_S):
            yield b": there is nothing new\n\n"
            continue
        rows = follower.take()
        if rows:
            yield b"".join(_event(call, parameters, row) for row in rows)
        elif follower.ended_as is not None:
            yield b"event: end\ndata: %b\n\n" % _encode(shapes.LogEnd(follower.ended_as))
            return


def _event(call: Call, parameters: dict[str, str], row: Any) -> bytes:
    data = _encode(log_entry_of(row, reads_payloads=call.key.reads_payloads))
    return b"id: %b\ndata: %b\n\n" % (_cursor(call, parameters, row).encode(), data)


def _cursor(call: Call, parameters: dict[str, str], row: Any) -> str:
    return write_cursor(call, parameters, _POSITION.pack(row.claim_no, row.seq))


def _position(cursor: bytes | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    claim_no, seq = _POSITION.unpack(cursor)
    return claim_no, seq
