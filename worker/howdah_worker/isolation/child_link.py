"""One child process on the event loop: given a run, told things, stopped; it says how the run ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final, Protocol, cast

from msgspec import UNSET

from howdah.core.entries import Entry
from howdah_worker import outcome
from howdah_worker.isolation.process import Process
from howdah_worker.isolation.wire import (
    Ended,
    FrameInvalid,
    Frames,
    Logged,
    MayRecord,
    Ready,
    Recorded,
    Recording,
    Refused,
    Told,
    frame,
)
from howdah_worker.outcome import Ending

if TYPE_CHECKING:
    from howdah_worker.isolation.process import Warden
    from howdah_worker.isolation.wire import Hello, Order, ToChild, ToWorker
    from howdah_worker.run import Run

# From SIGTERM to SIGKILL: shorter than the second that a fast stop leaves to handlers.
GRACE_S: Final = 0.8
# A process that ends closes its socket a moment before it can be waited for; one that has only closed its socket
# lives on, and is killed.
_EXIT_S: Final = 0.25


class Employer(Protocol):
    """What a child reports to, on the event loop."""

    def ended(self, child: ChildLink, run: Run, ending: Ending, is_interrupted: bool) -> None:
        """Take how the run of a child ended."""

    def logged(self, run: Run, entry: Entry) -> None:
        """Take what the handler says of its task."""

    async def may_record(self, run: Run) -> bool:
        """Tell whether the success of a run may be recorded by its child, from now on without our knowing it."""

    def recorded(self, run: Run, *, is_recorded: bool) -> None:
        """Take note of what became of that."""

    def gone(self, child: ChildLink) -> None:
        """Take note that a child, whose run has ended, is no more."""


class ChildLink(asyncio.Protocol):
    """A child process and the socket to it.

    Attributes:
        ready: Its first word; a refusal also if it ended before.
        is_ending: It is given no more runs.
    """

    def __init__(self, hello: Hello, warden: Warden, employer: Employer) -> None:
        """Start it, in the main thread.

        Raises:
            OSError: The system gives no more processes.
        """
        self._loop = asyncio.get_running_loop()
        self._employer = employer
        self.ready: asyncio.Future[Ready | Refused] = self._loop.create_future()
        self.is_ending = False
        self._run: Run | None = None
        self._number = 0
        self._last_word: Ended | None = None
        self._fault: str | None = None
        self._exit_code: int | None = None
        self._is_cut = self._has_ended = False
        self._frames = Frames()
        self._transport: asyncio.WriteTransport | None = None
        self._unsent = [frame(hello)]
        self._process = Process(warden, self._on_exit)
        self._answering: asyncio.Task[None] | None = None
        self._connecting = self._loop.create_task(self._connect())

    # Orders.

    def give(self, run: Run, order: Order) -> None:
        """Have a run performed; it must have none."""
        self._run = run
        self._number = order.number
        self._send(order)

    def tell(self) -> None:
        """Let the handler see that it should stop."""
        self._send(Told(self._number))

    def stop(self, *, at_once: bool) -> None:
        """End the process and all that it has started: with SIGTERM, and `GRACE_S` later SIGKILL, or at once so."""
        self.is_ending = True
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()
            self._loop.call_later(GRACE_S, self._process.kill)

    def kill(self) -> None:
        """End the process at once, from any thread."""
        self._process.kill()

    # What the socket says.

    async def _connect(self) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=self._process.socket)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waits."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its class.
        for each in self._unsent:
            self._transport.write(each)
        self._unsent = []

    def data_received(self, data: bytes) -> None:
        """Take what the child says."""
        try:
            for message in self._frames.take(data):
                self._hear(message)
        except FrameInvalid as error:
            self._fail(str(error))

    def connection_lost(self, _: Exception | None) -> None:
        """See that a process that can say nothing any more ends."""
        self._is_cut = True
        if self._exit_code is not None:
            self._end()
        else:
            self._loop.call_later(_EXIT_S, self._fail, "it closed its socket to the worker")

    def _hear(self, message: ToWorker) -> None:
        match message:
            case Ready() | Refused() if not self.ready.done():
                self.ready.set_result(message)
            case Recording(number) if number == self._number and self._run is not None:
                self._answering = self._loop.create_task(self._answer(number, self._run))
            case Logged(number, level, text, fields, fraction) if number == self._number and self._run is not None:
                self._employer.logged(self._run, Entry(level, text, fields, fraction))
            case Recorded(number, is_recorded) if number == self._number and self._run is not None:
                self._employer.recorded(self._run, is_recorded=is_recorded)
            case Ended(number=number) if number == self._number and self._run is not None and self._last_word is None:
                self.is_ending |= message.is_leaving
                if self.is_ending:
                    self._last_word = message  # Not before the process has ended, and all that it has started.
                else:
                    self._hand_over(self._run, _ending(message), message)
            case _:
                raise FrameInvalid("it spoke out of turn")

    async def _answer(self, number: int, run: Run) -> None:
        is_allowed = await self._employer.may_record(run)
        self._send(MayRecord(number, is_allowed and not self.is_ending))

    def _send(self, message: ToChild) -> None:
        if self._transport is None:
            self._unsent.append(frame(message))
        elif not self._transport.is_closing():
            self._transport.write(frame(message))

    # Its end.

    def _fail(self, fault: str) -> None:
        if self._exit_code is None and self._fault is None:
            self.is_ending = True
            self._fault = fault
            self._process.kill()

    def _on_exit(self, code: int) -> None:
        """Pass on, from the thread that waited, that the process has ended."""
        with contextlib.suppress(RuntimeError):  # The event loop has ended before.
            self._loop.call_soon_threadsafe(self._exited, code)

    def _exited(self, code: int) -> None:
        self._exit_code = code
        self.is_ending = True
        if self._is_cut:
            self._end()
        else:
            # What it said last is still to be read. A process that left the group may hold the socket open.
            self._loop.call_later(_EXIT_S, self._end)

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._transport is not None:
            self._transport.abort()
        death = self._death()
        if not self.ready.done():
            self.ready.set_result(Refused(death))
        if (run := self._run) is not None:
            if (word := self._last_word) is not None:
                self._hand_over(run, _ending(word), word)
            else:
                self._hand_over(run, outcome.process_died(death, self._exit_code), None)
        self._employer.gone(self)

    def _hand_over(self, run: Run, ending: Ending, word: Ended | None) -> None:
        self._run = run.child = None
        # A handler that fails because it is told to end was interrupted.
        is_interrupted = word is None or (word.is_leaving and ending.outcome == "failed")
        if word is not None:
            run.has_seen |= word.has_seen
            run.enqueued = [bytes(item) for item in word.enqueued] or None
        self._employer.ended(self, run, ending, is_interrupted)

    def _death(self) -> str:
        """Say how the process ended."""
        code = self._exit_code
        assert code is not None
        if self.ready.done() and isinstance(refused := self.ready.result(), Refused):
            return f"the child process did not start: {refused.reason}"
        before = "" if self.ready.done() else " before it was ready"
        if self._fault is not None and code == -signal.SIGKILL:
            return f"the child process was killed{before}: {self._fault}"
        if code >= 0:
            return f"the child process exited with code {code}{before}"
        name = outcome.signal_name(-code)
        hint = ", by somebody else, or for want of memory" if code == -signal.SIGKILL else ""
        return f"the child process was ended by signal {-code} ({name}){before}{hint}"


def _ending(ended: Ended) -> Ending:
    return Ending(
        ended.outcome,
        None if ended.result is UNSET else bytes(ended.result),
        None if ended.error is UNSET else bytes(ended.error),
        ended.retryable,
        ended.retry_in_s,
        is_decided=ended.is_decided,
    )
