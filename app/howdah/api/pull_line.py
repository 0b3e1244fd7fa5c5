"""A line: claims over HTTP from one queue, for the same handlers, served one after the other.

A claim with nothing to take waits in its line, and the first in it is served first: one
statement for one consumer, so however many wait, a task wakes one of them, and nobody
asks for work that is not there. Two lines of a queue with different handlers know
nothing of each other.

What a line knows of its lanes is a worker's lane book: shares by weight, so that nothing
starves, and a horizon for each lane, so that a claim does not walk the dead entries that
an open snapshot keeps in the index. It is of the process, not of a claim: a horizon that
begins anew with each request walks them each time, and one that is only bounded in time
misses what became ready in a transaction that took longer.

A line works only while somebody waits in it. What happened meanwhile it finds out by a
peek: every claim that is new makes one, unless work is known to be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from howdah.api.hot import HOT_CONNECTIONS
from howdah.core import metrics
from howdah.core.db.arrays import instant_us
from howdah.core.errors import DatabaseUnavailable, HowdahError, StorageUnavailable
from howdah.core.lane_book import LaneBook
from howdah.core.model import SUSPECT_CRASHES, ClaimedRun, LaneKey, LeaseKey
from howdah.core.store.lanes import LANES_PER_PEEK_MAX
from howdah.core.store.runs import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from howdah.api.database import Database
    from howdah.api.hot import Desk, HotPool
    from howdah.core.store.targets import Targets
    from howdah.core.wake import LaneReady

# On a wake-up that is lost depends a latency of so much, and nothing else.
POLL_S: Final = 1.0
# Names are looked up again after so long: a word that tells of new ones may be lost too.
RESOLVE_S: Final = 10.0
# As a worker's peek: what is due later is seen by a later poll.
_PEEK_AHEAD_S: Final = 60.0
# What one answer may hold in payloads and the like, unless a single run has more.
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
# What a run of a new line is taken to have until some were seen: the largest payload that most tenants may have.
_RUN_BYTES_FIRST: Final = 256 * 1024
# How fast the average forgets.
_RUN_BYTES_WEIGHT: Final = 0.5
HTTP_TARGET: Final = 0
# After a connection was lost in a claim, so long is waited for another to find its runs.
IN_DOUBT_S: Final = 1.0

_RUN_AT, _TIMEOUT_S, _DEADLINE_AT, _PRIORITY, _TENANT_ID, _TASK_ID, _CRASHES = map(
    ClaimedRun._fields.index, ("run_at", "timeout_s", "deadline_at", "priority", "tenant_id", "task_id", "crashes")
)
_TEXTS: Final = tuple(map(ClaimedRun._fields.index, ("payload", "http", "tags")))

Row: TypeAlias = tuple[Any, ...]


class LineKey(NamedTuple):
    """What claims must have in common to wait in one line."""

    tenant_id: int
    queue: str
    handlers: tuple[str, ...]
    takes_http: bool


class Entry:
    """A claim that waits in a line.

    Attributes:
        worker_id: Holder of the leases.
        run_count_max: Most runs that it takes.
        lease_s: Of each lease.
        token: 16 random bytes, of this claim alone.
        until: Monotonic instant at which it has waited enough.
        is_gone: Nobody is there for its runs any more.
        taken: Its runs, once it was served; none if it has waited in vain.
    """

    __slots__ = ("is_gone", "lease_s", "run_count_max", "taken", "token", "until", "worker_id")

    def __init__(self, worker_id: int, run_count_max: int, lease_s: float, token: bytes, until: float) -> None:
        self.worker_id = worker_id
        self.run_count_max = run_count_max
        self.lease_s = lease_s
        self.token = token
        self.until = until
        self.is_gone = False
        self.taken: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()


class Line:
    """The claims of one line, and what is known of its lanes."""

    def __init__(
        self,
        key: LineKey,
        database: Database,
        hot: HotPool,
        targets: Targets,
        give_back: Callable[[Entry, Sequence[Row]], None],
    ) -> None:
        """Describe it; it works from the first entry on.

        Args:
            key: What its claims have in common.
            database: Knows the time.
            hot: Connections.
            targets: Finds what names stand for.
            give_back: Called with runs that nobody is there for.
        """
        self.key = key
        self.queue_id: int | None = None
        self._limited: frozenset[int] = frozenset()
        self._names: dict[int, str] = {}
        self.idle_since = time.monotonic()
        self.working: asyncio.Task[None] | None = None
        self._database = database
        self._hot = hot
        self._targets = targets
        self._give_back = give_back
        self._waiting: deque[Entry] = deque()
        self._book = LaneBook()
        self._target_ids: list[int] = []
        self._resolve_at = 0.0
        self._poll_at = 0.0
        self._look_by = 0.0
        self._has_new = False
        self._run_bytes = float(_RUN_BYTES_FIRST)
        self._news = asyncio.Event()
        self._lost_count = 0
        self._recovering: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits in it, nor is served."""
        return self.working is None

    def holders(self) -> set[int]:
        """Return the consumers that wait."""
        return {entry.worker_id for entry in self._waiting}

    def enter(self, worker_id: int, run_count_max: int, lease_s: float, token: bytes, wait_s: float) -> Entry:
        """Let a claim wait behind the others; the entry tells what it got.

        Args:
            worker_id: Holder of the leases.
            run_count_max: Most runs that it takes.
            lease_s: Of each lease.
            token: 16 random bytes, of this claim alone.
            wait_s: How long it waits if there is nothing; 0 looks once.
        """
        entry = Entry(worker_id, run_count_max, lease_s, token, time.monotonic() + wait_s)
        self._waiting.append(entry)
        self._has_new = True
        self._news.set()
        if self.working is None:
            self.working = asyncio.create_task(self._work())
        return entry

    def abandon(self, entry: Entry) -> None:
        """Take a claim out, whose client has gone or waits no longer.

        What it has got, or is about to, is given back and spends no attempt.
        """
        entry.is_gone = True
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._news.set()
        if entry.taken.done() and not entry.taken.cancelled() and entry.taken.exception() is None:
            self._give_back(entry, entry.taken.result())

    async def names(self, target_ids: Collection[int]) -> dict[int, str]:
        """Return handlers by their targets, looked up if they are not known.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        if not self._names.keys() >= set(target_ids) - {HTTP_TARGET}:
            async with self._hot.use() as desk:
                await self._resolve(desk)
        return self._names

    def wake(self, word: LaneReady) -> None:
        """Take note of a run of this line's queue."""
        # A claim that is too early costs less than a wait: our idea of the time may be a little behind.
        clock = self._database.clock
        now = self._now() + int(clock.uncertainty_s() * 1e6)
        self._book.wake(LaneKey(word.queue_id, word.priority), instant_us(word.run_at_us), now)
        self._news.set()

    def rewind(self) -> None:
        """Take note that any lane may have work."""
        self._book.rewind()
        self._news.set()

    def resolve(self) -> None:
        """Take note that names may stand for something else now."""
        self._resolve_at = 0.0
        self._news.set()

    def reset(self) -> None:
        """Begin without horizons: another server may answer, with other rows."""
        self._book.reset()
        self.resolve()

    async def _work(self) -> None:
        try:
            while self._waiting:
                self._news.clear()
                try:
                    did_something = await self._round()
                except HowdahError as error:
                    await self._fail_unless_cut(error)
                else:
                    self._lost_count = 0
                    if not did_something:
                        await self._sleep()
        except Exception as error:
            # A crash must not leave anybody waiting; the next claim starts the line anew.
            self._fail(error)
        finally:
            self.working = None
            self.idle_since = time.monotonic()

    async def _round(self) -> bool:
        """Do what is to be done now; whether there may be more to do at once."""
        async with self._hot.use() as desk:
            if time.monotonic() >= self._resolve_at:
                await self._resolve(desk)
            if self._has_new or time.monotonic() >= self._poll_at:
                self._has_new = False
                self._poll_at = time.monotonic() + POLL_S
                self._book.doubt()
            if not self._target_ids:
                return False
            now = self._now()
            has_ready = self._book.has_ready(now)
            if (not has_ready or time.monotonic() >= self._look_by) and self._book.is_unsure(now):
                # While one lane has a backlog what falls due in others would never be looked for.
                self._look_by = time.monotonic() + POLL_S
                await self._peek(desk, now)
                return True
            if not has_ready or not self._waiting:
                return False
            entry = self._waiting.popleft()
            rows: list[Row] = []
            try:
                await self._claim(desk, entry, rows)
                await _begin_alone(desk, entry, rows)
            except BaseException as error:
                self._end_in_doubt(entry, rows, error)
                raise
            if rows:
                self._answer(entry, rows)
            elif not entry.is_gone:
                # Others were faster.
                self._waiting.appendleft(entry)
        return True

    async def _resolve(self, desk: Desk) -> None:
        found = await self._targets.find(desk.conn, self.key.tenant_id, self.key.queue, self.key.handlers)
        self._resolve_at = time.monotonic() + RESOLVE_S
        http = [HTTP_TARGET] if self.key.takes_http else []
        has_new = bool(set(found.target_ids) - self._names.keys())
        self.queue_id = found.queue_id
        self._limited = frozenset({found.queue_id} if found.queue_id is not None and found.is_limited else ())
        self._names = dict(zip(found.target_ids, found.names, strict=True))
        self._target_ids = [] if found.queue_id is None else http + found.target_ids
        self._book.set_queues({} if found.queue_id is None else {found.queue_id: self.key.tenant_id})
        if has_new:
            # Their runs may lie below the horizons.
            self._book.rewind()

    async def _peek(self, desk: Desk, now: int) -> None:
        asked = self._book.take_unsure(LANES_PER_PEEK_MAX, now)
        dues = await desk.lanes.peek(desk.conn, asked, self._target_ids, ahead_s=_PEEK_AHEAD_S)
        self._book.peeked(asked, dues, self._now())

    async def _claim(self, desk: Desk, entry: Entry, rows: list[Row]) -> None:
        """Claim for one consumer, in several steps where a lane has less than its share or payloads are large."""
        size = 0
        while len(rows) < entry.run_count_max and size < ANSWER_BYTES_MAX and self._book.has_ready(now := self._now()):
            room = max(1, int((ANSWER_BYTES_MAX - size) / self._run_bytes))
            offers = self._book.offers(now, min(entry.run_count_max - len(rows), room))
            began = time.monotonic()
            claim = await desk.runs.claim(
                desk.conn,
                offers,
                self._target_ids,
                worker_id=entry.worker_id,
                lease_token=entry.token,
                lease_s=entry.lease_s,
                limited=self._limited,
                grace_s=GRACE_S,
            )
            metrics.CLAIM_SECONDS.observe_many([time.monotonic() - began])
            self._book.claimed(offers, claim.rows, claim.unfinished)
            if not claim.rows:
                if claim.unfinished:
                    continue
                return
            rows += claim.rows
            found_bytes = sum(map(_size, claim.rows))
            size += found_bytes
            self._run_bytes += _RUN_BYTES_WEIGHT * (max(1.0, found_bytes / len(claim.rows)) - self._run_bytes)

    def _end_in_doubt(self, entry: Entry, rows: list[Row], error: BaseException) -> None:
        """Answer what was claimed before something went wrong; an answer that was lost is looked for apart."""
        if isinstance(error, DatabaseUnavailable) and not isinstance(error, StorageUnavailable):
            recovering = asyncio.create_task(self._recover(entry, rows, error))
            self._recovering.add(recovering)
            recovering.add_done_callback(self._recovering.discard)
        elif rows:
            self._answer(entry, rows)
        else:
            _refuse(entry, error)

    async def _recover(self, entry: Entry, rows: list[Row], error: DatabaseUnavailable) -> None:
        """Find all runs of a claim an answer of which was lost, by its token."""
        with contextlib.suppress(HowdahError):
            if await self._database.is_there() or await self._database.wait_found(IN_DOUBT_S):
                rows = await self._hot.repeat(
                    lambda desk: desk.runs.find_claimed(desk.conn, entry.token, entry.worker_id)
                )
        if rows:
            self._answer(entry, rows)
        else:
            _refuse(entry, error)

    def _answer(self, entry: Entry, rows: list[Row]) -> None:
        """Hand runs over, the most urgent first, as many as an answer may hold; the others are given back."""
        metrics.RUNS_CLAIMED.inc(len(rows))
        metrics.RUN_WAIT_SECONDS.observe_many(
            [(row[_DEADLINE_AT] - row[_RUN_AT]) / 1e6 - row[_TIMEOUT_S] for row in rows]
        )
        if entry.is_gone:
            self._give_back(entry, rows)
            return
        rows.sort(key=_urgency)
        if (suspect := _suspect(rows)) is not None:
            self._give_back(entry, [row for row in rows if row is not suspect])
            rows[:] = [suspect]
        size = 0
        for place, row in enumerate(rows):
            size += _size(row)
            if size > ANSWER_BYTES_MAX and place:
                self._give_back(entry, rows[place:])
                del rows[place:]
                break
        entry.taken.set_result(rows)

    async def _sleep(self) -> None:
        """Let go who has waited enough, then wait for news, at most until something falls due."""
        if self._has_new:
            return
        now = time.monotonic()
        for entry in [entry for entry in self._waiting if entry.until <= now]:
            self._waiting.remove(entry)
            entry.taken.set_result([])
        if not self._waiting:
            return
        wake_at = min(self._poll_at, self._resolve_at, *(entry.until for entry in self._waiting))
        if (due := self._book.next_due()) is not None and self._target_ids:
            wake_at = min(wake_at, now + (due - self._now()) / 1e6)
        timer = asyncio.get_running_loop().call_later(max(0.0, wake_at - now), self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    async def _fail_unless_cut(self, error: HowdahError) -> None:
        """Go on if connections were lost that were cut while nobody used them; else refuse all who wait."""
        is_outage = isinstance(error, DatabaseUnavailable) and not isinstance(error, StorageUnavailable)
        self._lost_count += 1
        if is_outage and self._lost_count <= HOT_CONNECTIONS and await self._database.is_there():
            return
        self._lost_count = 0
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            _refuse(entry, error)

    def _now(self) -> int:
        """Return the database's time in microseconds since 2000."""
        return instant_us(int(self._database.clock.now_s() * 1e6))


def _urgency(row: Row) -> tuple[Any, ...]:
    return -row[_PRIORITY], row[_RUN_AT], row[_TASK_ID]


def _suspect(rows: Sequence[Row]) -> Row | None:
    """Return the run that is to be the only one of its answer, because it may kill whoever executes it."""
    return min((row for row in rows if row[_CRASHES] >= SUSPECT_CRASHES), key=_urgency, default=None)


async def _begin_alone(desk: Desk, entry: Entry, rows: Sequence[Row]) -> None:
    """Take note of a run that is the only one of its answer; otherwise its loss would not count as its own doing."""
    if (row := _suspect(rows)) is not None:
        key = LeaseKey(row[_TENANT_ID], row[_TASK_ID], entry.token)
        await desk.runs.begin_alone(desk.conn, key, row[_TIMEOUT_S])


def _refuse(entry: Entry, error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        error = DatabaseUnavailable("the process is to stop")
    if not entry.taken.done() and not entry.is_gone:
        entry.taken.set_exception(error)


def _size(row: Row) -> int:
    return sum(len(row[place]) for place in _TEXTS if row[place] is not None)
