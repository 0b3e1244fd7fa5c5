"""A callback client that may reach the loopback, and requests for it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from howdah.core.addresses import AddressPolicy
from howdah_worker.callback import AttemptContext, CallbackClient, CallbackRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The database's time in these tests: not the machine's, so that the two cannot be confused.
NOW_S = 1_700_000_000.75
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TASK_ID = "018bcfe5-6880-7000-8000-000000000001"
RESPONSE_BYTES_MAX = 64

LOOPBACK_OPEN = AddressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))


def make_request(url: str, **changes: Any) -> CallbackRequest:
    """Return a POST of `{}` to a URL, with some of it changed."""
    fields = {
        "body": b"{}",
        "method": "POST",
        "headers": {},
        "content_type": "application/json",
        "success_statuses": frozenset(),
        "timeout_s": 5.0,
    }
    return CallbackRequest(url, **{**fields, **changes})


def make_context(**changes: Any) -> AttemptContext:
    """Return the first attempt of a task, with some of it changed."""
    fields = {"attempt": 1, "claim_no": 1, "queue": "emails", "secrets": (SECRET,), "traceparent": None}
    return AttemptContext(TASK_ID, **{**fields, **changes})


def make_client(policy: AddressPolicy = LOOPBACK_OPEN, **changes: Any) -> CallbackClient:
    """Return a client that has not been entered; it keeps 64 bytes of an answer."""
    fields = {"now_s": lambda: NOW_S, "response_bytes_max": RESPONSE_BYTES_MAX}
    return CallbackClient(policy=policy, **{**fields, **changes})


@pytest.fixture
async def callbacks() -> AsyncIterator[CallbackClient]:
    """A client that may reach the loopback."""
    async with make_client() as client:
        yield client
