"""What a run asks of its HTTP target, read from its task. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from howdah_worker.callback import CallbackRequest

_JSON = "application/json"


class _Http(msgspec.Struct, frozen=True):
    """`tasks.http`, whose form the enqueue function has checked."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = {}
    body: str | None = None
    content_type: str = "text/plain; charset=utf-8"
    success_statuses: frozenset[int] = frozenset()
    mode: Literal["sync", "async"] = "sync"


_decode = msgspec.json.Decoder(_Http).decode


def request_of(http: bytes, payload: bytes | None, timeout_s: float) -> CallbackRequest:
    """Build the request that a task asks for: its payload byte for byte, or the body that it names.

    Args:
        http: JSON text of the task's target.
        payload: JSON text, or None.
        timeout_s: Of this attempt.

    Raises:
        msgspec.DecodeError: The target is not of the form that tasks have.
    """
    target = _decode(http)
    if target.body is not None:
        body, content_type = target.body.encode(), target.content_type
    else:
        body, content_type = payload or b"", _JSON
    return CallbackRequest(
        url=target.url,
        body=body,
        method=target.method,
        headers=target.headers,
        content_type=content_type,
        success_statuses=target.success_statuses,
        timeout_s=timeout_s,
        is_async=target.mode == "async",
    )
