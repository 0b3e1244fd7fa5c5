"""Calls handlers: a run goes in, its ending comes out.

A handler on the event loop takes its first step here and now, in a context of its own
(of `contextvars`). If it never waits, that was all, and it needed no asyncio task, which
costs 3 us on Python 3.11. If it waits, its rest goes on in the task that began it.
"""

from __future__ import annotations

from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any

from howdah.core import log
from howdah_worker import outcome
from howdah_worker.run_context import RunContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from contextvars import Context

    from howdah.handlers import Handler
    from howdah_worker.delivery import Delivery
    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run
    from howdah_worker.run_context import Surroundings


class Performer:
    """Performs the runs of one worker; it knows nothing of slots and stops."""

    def __init__(self, around: Surroundings, delivery: Delivery, context: Context) -> None:
        """Give handlers what is `around` them, callbacks to `delivery`, and each run a copy of `context`."""
        self._around = around
        self._delivery = delivery
        self._context = context

    def begin(self, run: Run) -> Ending | Awaitable[Any]:
        """Let an async handler, or a callback, take its first step.

        Returns:
            How it ended; or, if it waits, its rest, to be awaited in the current task and given to `ending_of`.
        """
        context = self._context.copy()
        return context.run(self._first_step, run, context)

    def perform(self, run: Run) -> Ending:
        """Call a plain function, which may block this thread."""
        return self._context.copy().run(self._call, run)

    @staticmethod
    def ending_of(run: Run, returned: Any) -> Ending:
        """Turn what an async handler returned, or the delivery of a callback, into an ending."""
        if run.handler is not None:
            return outcome.of_result(returned)
        ending: Ending = returned
        return ending

    def _first_step(self, run: Run, context: Context) -> Ending | Awaitable[Any]:
        log.bind(run.log_fields)
        try:
            work = self._work_of(run)
        except BaseException as error:  # Apart: a StopIteration of the handler's own means no result.
            return outcome.of_error(error)
        try:
            try:
                waits_for = work.send(None)
            except StopIteration as end:
                return self.ending_of(run, end.value)
        except BaseException as error:
            return outcome.of_error(error)
        return _rest(work, waits_for, context)

    def _work_of(self, run: Run) -> Coroutine[Any, Any, Any]:
        handler = run.handler
        if handler is None:
            return self._delivery.deliver(run)
        work = handler.function(*self._arguments(run, handler))
        return work if type(work) is CoroutineType else _awaited(work)

    def _call(self, run: Run) -> Ending:
        log.bind(run.log_fields)
        handler = run.handler
        assert handler is not None
        try:
            return outcome.of_result(handler.call(self._arguments(run, handler)))
        except BaseException as error:
            return outcome.of_error(error)

    def _arguments(self, run: Run, handler: Handler) -> tuple[Any, ...]:
        context = RunContext(run, handler.name, self._around) if handler.takes_context else None
        return handler.arguments(run.payload, context)


async def _awaited(work: Awaitable[Any]) -> Any:
    """Make a coroutine of anything else that may be awaited."""
    return await work


@coroutine
def _rest(work: Coroutine[Any, Any, Any], waits_for: Any, context: Context) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has given `waits_for` to the event loop: what awaiting it does, in its context."""
    while True:
        step: Callable[[Any], Any] = work.send
        sent: Any = None
        try:
            sent = yield waits_for
        except BaseException as error:  # A cancellation, most likely.
            step, sent = work.throw, error
        try:
            # Outside of the block above, or an error of the coroutine would seem to come of what was thrown in.
            waits_for = context.run(step, sent)
        except StopIteration as end:
            return end.value
