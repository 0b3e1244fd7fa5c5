"""Waiting for a condition: the only place in the suite that polls.

A test states what must become true and by when; it never sleeps for a while
and hopes.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_LOOK_S = 0.01


def eventually(predicate: Callable[[], T], timeout_s: float, what: str) -> T:
    """Call the predicate until its result is true, and return that result.

    Blocks; in a coroutine use `eventually_async`.

    Raises:
        AssertionError: It was not true within `timeout_s` seconds. The message
            holds `what` and the last result.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        is_last = time.monotonic() >= deadline
        result = predicate()
        if inspect.isawaitable(result):
            raise TypeError("the predicate is asynchronous (and so always true): use eventually_async")
        if result:
            return result
        assert not is_last, f"{what}: not within {timeout_s:g} s; last seen: {result!r}"
        time.sleep(_LOOK_S)


async def eventually_async(predicate: Callable[[], Awaitable[T] | T], timeout_s: float, what: str) -> T:
    """Do what `eventually` does without blocking the loop; the predicate may be asynchronous.

    Raises:
        AssertionError: As `eventually`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        is_last = time.monotonic() >= deadline
        seen = predicate()
        result = await seen if inspect.isawaitable(seen) else cast("T", seen)
        if result:
            return result
        assert not is_last, f"{what}: not within {timeout_s:g} s; last seen: {result!r}"
        await asyncio.sleep(_LOOK_S)
