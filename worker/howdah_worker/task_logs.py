"""What handlers log of their tasks, on its way to PostgreSQL.

Handlers only put entries into memory, from the event loop or any thread. One loop writes them, in
the order in which they came, in batches, over a connection of its own that is made at the first
entry. Entries of a run are stored before its outcome: a run that has some is given to the finisher
when they are written.

Memory is bounded: what does not fit is dropped, and an entry says how many were. If PostgreSQL is
away entries wait, as outcomes do; if it refuses them, they are dropped and the outcome goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.backoff import retry_forever
from howdah.core.db.arrays import instant_us
from howdah.core.entries import LEVELS, Entry
from howdah.core.errors import StorageUnavailable
from howdah.core.store.server import Server
from howdah.core.store.task_logs import Said
from howdah_worker.connection import HotConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from howdah.core.clock import DatabaseClock
    from howdah.core.db.connect import Connection
    from howdah.core.settings import Settings
    from howdah.core.store.task_logs import TaskLogs as Store
    from howdah_worker.run import Run

# With the statement and its commit, an entry can be read a quarter of a second after it was made.
DELAY_S: Final = 0.2
# What a handler may say in one attempt; progress does not count.
ENTRIES_MAX: Final = 10_000
BYTES_MAX: Final = 1024 * 1024
# What may wait in this process, of all runs together.
WAITING_BYTES_MAX: Final = 8 * 1024 * 1024
# What one statement writes: at most 1,000 entries, or so many bytes and an entry.
BATCH_ENTRIES: Final = 1_000
BATCH_BYTES: Final = 1024 * 1024
# Progress is written this often at first; in a run that takes long, after each thousandth of its time. So a day
# makes some 8,000 entries of it.
PROGRESS_S: Final = 0.25
PROGRESS_SHARE: Final = 0.001
# Nobody's outcome shall wait for long behind a statement that does not come through.
STATEMENT_S_MAX: Final = 5.0
LOCK_S_MAX: Final = 1.0

_logger = logging.getLogger(__name__)


class Journal:
    """What a run has said so far.

    Attributes:
        entry_count: Entries that were taken, but for progress.
        byte_count: Their size.
        waiting: Entries that are not written yet.
        dropped: Entries that did not fit, and of which nothing was said yet.
        seq: Number of the last entry that was numbered.
        progress: The latest, not written yet, and when it was told.
        progress_at: Monotonic instant at which the last progress was written.
        is_cut: The limit of the attempt was reached, and an entry says so.
        is_closed: The outcome is decided: nothing more is taken.
    """

    __slots__ = (
        "byte_count",
        "dropped",
        "entry_count",
        "is_closed",
        "is_cut",
        "progress",
        "progress_at",
        "seq",
        "waiting",
    )

    def __init__(self) -> None:
        """Begin empty."""
        self.entry_count = self.byte_count = self.waiting = self.dropped = self.seq = 0
        self.progress: tuple[Entry, int] | None = None
        self.progress_at = 0.0
        self.is_cut = self.is_closed = False


class TaskLogs:
    """Takes entries of all runs of this worker, and writes them."""

    def __init__(self, settings: Settings, store: Store, clock: DatabaseClock) -> None:
        """Make it on the event loop; `run` does the work."""
        self._loop = asyncio.get_running_loop()
        self._connection = HotConnection(settings)
        self._server = Server(settings.schema)
        self._store = store
        self._clock = clock
        # Guards what handlers in threads change; never held while waiting.
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Run, Entry, int]] = deque()
        self._waiting_bytes = 0
        self._progressing: dict[Run, Journal] = {}
        self._asked: dict[Run, list[Callable[[], None]]] = {}
        self._batch: list[Said] = []
        self._batch_runs: list[Run] = []
        self._is_repeat = False
        self._wanted = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_woken = self._is_hurried = False

    # What handlers do, in any thread.

    def add(self, run: Run, entry: Entry) -> None:
        """Take an entry, unless it is too much for its attempt, or for this process."""
        now = self._now()
        with self._lock:
            journal = self._journal(run)
            if journal.is_closed or journal.is_cut:
                metrics.LOG_ENTRIES_DROPPED.labels("late" if journal.is_closed else "limit").inc()
                return
            journal.entry_count += 1
            journal.byte_count += entry.size
            if journal.entry_count > ENTRIES_MAX or journal.byte_count > BYTES_MAX:
                journal.is_cut = True
                metrics.LOG_ENTRIES_DROPPED.labels("limit").inc()
                entry = _notice(f"the log is cut: an attempt may have {ENTRIES_MAX} entries, and {BYTES_MAX} bytes")
            elif self._waiting_bytes + entry.size > WAITING_BYTES_MAX:
                journal.dropped += 1
                metrics.LOG_ENTRIES_DROPPED.labels("backlog").inc()
                return
            self._tell_dropped(run, journal, now)
            self._put(run, journal, entry, now)
            is_much = self._waiting_bytes > BATCH_BYTES
        self._wake(is_much)

    def set_progress(self, run: Run, entry: Entry) -> None:
        """Take progress; of what comes faster than it is written the last counts."""
        now = self._now()
        with self._lock:
            journal = self._journal(run)
            if journal.is_closed:
                return
            journal.progress = (entry, now)
            self._progressing[run] = journal
        self._wake(False)

    def flush_sync(self, run: Run) -> None:
        """Block a thread until all that the run has said so far is written, or dropped."""
        if run.journal is not None:
            asyncio.run_coroutine_threadsafe(self.flush(run), self._loop).result()

    # What the worker does, on the event loop.

    async def flush(self, run: Run) -> None:
        """Wait until all that the run has said so far is written, or dropped."""
        if run.journal is None:
            return
        written = self._loop.create_future()
        self._ask(run, lambda: None if written.done() else written.set_result(None))
        await written

    def close(self, run: Run, then: Callable[[], None]) -> None:
        """Take no more of a run that has a journal, and call `then` when all it said is written, or dropped."""
        journal = run.journal
        assert journal is not None
        with self._lock:
            journal.is_closed = True
            if journal.dropped:
                self._tell_dropped(run, journal, self._now())
            has_more = journal.waiting or journal.progress is not None
        if has_more:
            self._ask(run, then)
        else:
            then()

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop` is set.

        Raises:
            Stopped: `stop` was set while PostgreSQL was away.
        """
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._hurry_up())
        try:
            while not stop.is_set():
                if not self._batch:
                    await self._wanted.wait()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(DELAY_S):
                            await self._hurry.wait()
                    self._wanted.clear()
                    self._hurry.clear()
                    # Before anything is taken: what is put from here on wakes this loop again.
                    self._is_woken = self._is_hurried = False
                await self._write_all(stop)
        finally:
            stopping.cancel()
            await self._connection.drop()
            if stop.is_set():
                # A handler that outlives the worker must not wait for ever, in a transaction of its own.
                for run in list(self._asked):
                    for then in self._asked.pop(run):
                        then()

    # The rest.

    def _now(self) -> int:
        return instant_us(int(self._clock.now_s() * 1_000_000))

    @staticmethod
    def _journal(run: Run) -> Journal:
        if run.journal is None:
            run.journal = Journal()
        return run.journal

    def _put(self, run: Run, journal: Journal, entry: Entry, now: int) -> None:
        journal.waiting += 1
        self._waiting.append((run, entry, now))
        self._waiting_bytes += entry.size

    def _tell_dropped(self, run: Run, journal: Journal, now: int) -> None:
        if journal.dropped:
            count, journal.dropped = journal.dropped, 0
            entry = _notice(f"{count} entries were dropped: PostgreSQL did not take them as fast as they came")
            self._put(run, journal, entry, now)

    def _wake(self, is_much: bool) -> None:
        """See that the loop writes; once, for each message to it is a system call."""
        if is_much and not self._is_hurried:
            self._is_hurried = True
            self._tell(self._hurry)
        if not self._is_woken:
            self._is_woken = True
            self._tell(self._wanted)

    def _tell(self, event: asyncio.Event) -> None:
        # The loop is closed: a handler has outlived its worker.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(event.set)

    def _ask(self, run: Run, then: Callable[[], None]) -> None:
        self._asked.setdefault(run, []).append(then)
        self._hurry_up()

    def _hurry_up(self) -> None:
        self._wanted.set()
        self._hurry.set()

    async def _write_all(self, stop: asyncio.Event) -> None:
        """Write what waits now, statement by statement; what comes meanwhile waits for its turn."""
        while True:
            # A batch that a crash of this loop left behind goes first.
            if not self._batch:
                self._take()
            if not self._batch:
                break
            await retry_forever(self._write, "log", stop)
            self._settle()
        self._answer()
        if self._progressing:
            self._loop.call_later(PROGRESS_S, self._wanted.set)

    def _take(self) -> None:
        """Number the next entries: in the order in which they are written, so that followers miss none."""
        said: list[Said] = []
        size = 0
        with self._lock:
            while self._waiting and len(said) < BATCH_ENTRIES and size < BATCH_BYTES:
                run, entry, at = self._waiting.popleft()
                size += entry.size
                self._waiting_bytes -= entry.size
                self._batch_runs.append(run)
                said.append(_said(run, entry, at))
            now = time.monotonic()
            # Behind the entries that came before it; but what has ended does not wait for the entries of others.
            is_behind = bool(self._waiting)
            for run in [run for run in self._progressing if self._is_due(run, now, is_behind)]:
                journal = self._progressing.pop(run)
                assert journal.progress is not None
                (entry, at), journal.progress = journal.progress, None
                journal.progress_at = now
                journal.waiting += 1
                self._batch_runs.append(run)
                said.append(_said(run, entry, at))
        self._batch, self._is_repeat = said, False

    def _is_due(self, run: Run, now: float, is_behind: bool) -> bool:
        journal = self._progressing[run]
        if run in self._asked or journal.is_closed:
            return True
        return not is_behind and now - journal.progress_at >= max(PROGRESS_S, PROGRESS_SHARE * (now - run.started_at))

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        async with self._connection.use() as conn:
            if self._connection.is_new:
                await self._server.limit_session(conn, statement_timeout_s=STATEMENT_S_MAX, lock_timeout_s=LOCK_S_MAX)
            yield conn

    async def _write(self) -> None:
        is_repeat, self._is_repeat = self._is_repeat, True
        try:
            async with self._connected() as conn:
                stored = await self._store.insert(conn, self._batch)
        except StorageUnavailable as reason:
            stored = 0
            _logger.warning("log_entries_lost", extra={"fields": {"count": len(self._batch), "reason": str(reason)}})
        # Of a repeat it is not known what the first try stored.
        if not is_repeat and stored < len(self._batch):
            metrics.LOG_ENTRIES_DROPPED.labels("refused").inc(len(self._batch) - stored)

    def _settle(self) -> None:
        with self._lock:
            for run in self._batch_runs:
                assert run.journal is not None
                run.journal.waiting -= 1
            self._batch, self._batch_runs = [], []
        self._answer()

    def _answer(self) -> None:
        """Call those back whose entries are all written."""
        for run in list(self._asked):
            journal = run.journal
            if journal is None or (not journal.waiting and journal.progress is None):
                for then in self._asked.pop(run):
                    then()


def _said(run: Run, entry: Entry, at: int) -> Said:
    journal = run.journal
    assert journal is not None
    journal.seq += 1
    return Said(
        run.tenant_id,
        run.task_id,
        run.token,
        run.claim_no,
        journal.seq,
        entry.level,
        entry.fraction,
        at,
        entry.message,
        entry.fields,
    )


def _notice(message: str) -> Entry:
    return Entry(LEVELS["warning"], message, b'{"by": "howdah"}')
