"""What handlers and receivers decide about their tasks, through a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import howdah

if TYPE_CHECKING:
    from tests.fix_worker import Workbench


@pytest.mark.parametrize("how", ["raised", "returned"])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_snoozed_task_comes_again_with_all_its_attempts(bench: Workbench, how: str, kind: str) -> None:
    """Two snoozes, and the only attempt is still there to succeed."""
    attempts: list[tuple[int, int]] = []

    def decide(ctx: howdah.Context) -> str:
        attempts.append((ctx.attempt, ctx.claim_no))
        if ctx.claim_no < 3:
            if how == "raised":
                raise howdah.Snooze(0.05, "not yet")
            return howdah.Snooze("50ms")  # type: ignore[return-value]
        return "done"

    if kind == "async":

        @howdah.handler("later")
        async def later(payload: Any, ctx: howdah.Context) -> str:
            return decide(ctx)

    else:

        @howdah.handler("later")
        def later_plain(payload: Any, ctx: howdah.Context) -> str:
            return decide(ctx)

    await bench.start()
    [task] = await bench.enqueue("later", retry={"max_attempts": 1})
    ended = await bench.ended(task)

    assert (ended["outcome"], ended["result"]) == ("succeeded", "done")
    assert attempts == [(1, 1), (1, 2), (1, 3)]
    assert [row["outcome"] for row in await bench.history(task)] == ["released", "released", "succeeded"]


async def test_task_that_is_given_up_is_a_dead_letter_at_once(bench: Workbench) -> None:
    """GiveUp spends no further attempts, and its reason is what operators read."""

    @howdah.handler("hopeless")
    async def hopeless(payload: Any) -> None:
        raise howdah.GiveUp("no such customer")

    await bench.start()
    [task] = await bench.enqueue("hopeless", retry={"max_attempts": 9})
    await bench.drained()
    [dead] = await bench.sql("SELECT reason, attempt, error FROM howdah.dead_letters WHERE task_id = %s", task)

    assert (dead["reason"], dead["attempt"]) == ("not_retryable", 1)
    assert dead["error"] == {"type": "gave_up", "message": "no such customer"}


async def test_handler_chooses_when_it_is_tried_again(bench: Workbench) -> None:
    """RetryAfter spends the attempt, and its delay counts instead of the policy's."""

    @howdah.handler("patient")
    async def patient(payload: Any, ctx: howdah.Context) -> int:
        if ctx.attempt == 1:
            raise howdah.RetryAfter(0.05)
        return ctx.attempt

    await bench.start()
    [task] = await bench.enqueue("patient", retry={"initial": "1h", "max": "1h", "errors": ["other"]})
    ended = await bench.ended(task)

    assert (ended["outcome"], ended["result"]) == ("succeeded", 2)


async def test_handler_cancels_its_own_task(bench: Workbench) -> None:
    """A task that has become pointless ends as cancelled, not as a dead letter."""

    @howdah.handler("withdrawn")
    async def withdrawn(payload: Any) -> howdah.Cancel:
        return howdah.Cancel("the order was withdrawn")

    await bench.start()
    [task] = await bench.enqueue("withdrawn")
    ended = await bench.ended(task)

    assert ended["outcome"] == "cancelled"
    assert ended["error"]["message"] == "the order was withdrawn"
    assert await bench.sql("SELECT 1 FROM howdah.dead_letters") == []


async def test_only_errors_that_the_policy_names_are_tried_again(bench: Workbench) -> None:
    """Of two handlers that raise, the one whose error is named is tried until its attempts are spent."""

    @howdah.handler("moody")
    async def moody(payload: str) -> None:
        raise {"key": KeyError, "value": ValueError}[payload]("no")

    await bench.start()
    retry = {"max_attempts": 3, "initial": "0s", "errors": ["KeyError", "timed_out"]}
    [named] = await bench.enqueue("moody", "key", retry=retry)
    [other] = await bench.enqueue("moody", "value", retry=retry)
    await bench.drained()

    assert len(await bench.history(named)) == 3
    assert len(await bench.history(other)) == 1
