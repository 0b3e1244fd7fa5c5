"""Sample handlers: what a module named in HOWDAH_HANDLERS looks like."""

from __future__ import annotations

from typing import TypedDict

import howdah


class Greeting(TypedDict, total=False):
    """Whom to greet."""

    name: str


@howdah.handler("demo.greet")
async def greet(payload: Greeting) -> dict[str, str]:
    """Return at once; what is returned is the task's result."""
    return {"greeting": f"Hello, {payload.get('name', 'world')}!"}


@howdah.handler("demo.report")
def report(payload: dict[str, float], ctx: howdah.Context) -> dict[str, float]:
    """Take a while, in a thread, and stop early if the task is cancelled."""
    seconds = payload.get("seconds", 0.5)
    if ctx.wait_cancelled(seconds):
        raise RuntimeError("cancelled before the report was done")
    return {"seconds": seconds}


@howdah.handler("demo.flaky")
async def flaky(payload: dict[str, int], ctx: howdah.Context) -> dict[str, int]:
    """Fail until a later attempt: what is raised is recorded, and the task is tried again."""
    if ctx.attempt < payload.get("succeeds_at", 3):
        raise ConnectionError(f"the other side did not answer attempt {ctx.attempt}")
    return {"attempt": ctx.attempt}


@howdah.handler("demo.broken")
async def broken(payload: object) -> None:
    """Fail for good: the task ends as a dead letter, with this error."""
    raise ValueError("this handler is broken on purpose")
