"""Claims runs: as many as there is room for, from the lanes that have work, the moment they have it.

It wakes by notifications, by the next due time that it knows of, and by a poll
every second, on which nothing but latency depends. Plain functions are claimed
apart from everything else, for when all threads are busy their runs should wait
where other workers can take them, and so are isolated ones; so there are up to three
lane books.

An answer may be lost after the claim has committed. The claim's token is then
asked for until its lease would be over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from howdah.core import metrics
from howdah.core.backoff import retry_forever
from howdah.core.db.arrays import instant_us
from howdah.core.lane_book import LaneBook
from howdah.core.model import ClaimedRun, LaneKey
from howdah.core.store.lanes import LANES_PER_PEEK_MAX
from howdah.core.store.runs import Runs
from howdah.core.wake import AllLanes, BeatNow, CatalogueChanged, LaneReady
from howdah_worker.connection import HotConnection
from howdah_worker.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from howdah.core.clock import DatabaseClock
    from howdah.core.db.connect import Connection
    from howdah.core.model import Offer
    from howdah.core.settings import Settings
    from howdah.core.store.lanes import Lanes
    from howdah.core.store.server import Server
    from howdah.core.wake import Word
    from howdah_worker.catalogue import Catalogue
    from howdah_worker.executor import Executor
    from howdah_worker.lease_keeper import LeaseKeeper

POLL_S: Final = 1.0
# With very many lanes a poll takes long; it then comes less often.
_POLL_COSTS: Final = 20
_POLL_S_MAX: Final = 30.0
# How many tenants get a claim of their own before those that have runs waiting here, and of how many runs: about 2 ms.
# More of them are a crowd, which a claim for all serves sooner.
_NEWCOMERS_MAX: Final = 8
_BESIDE_MAX: Final = 100
# What a peek looks for. Whatever is due later is seen by a later poll, in time.
_PEEK_AHEAD_S: Final = 2 * _POLL_S_MAX

_RUN_AT, _TIMEOUT_S, _DEADLINE_AT = map(ClaimedRun._fields.index, ("run_at", "timeout_s", "deadline_at"))

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Source:
    """What is claimed together."""

    place: Place
    book: LaneBook
    target_ids: list[int]
    look_by: float = 0.0
    """Monotonic instant from which a look at lanes that are not ready goes before claims."""

    def wants(self, executor: Executor) -> bool:
        """Tell whether there is room for what is claimed from here."""
        return bool(self.target_ids) and executor.want(self.place) > 0


class Claimer:
    """The loop that keeps the executor supplied."""

    def __init__(
        self,
        settings: Settings,
        worker_id: int,
        *,
        catalogue: Catalogue,
        clock: DatabaseClock,
        runs: Runs,
        lanes: Lanes,
        server: Server,
        keeper: LeaseKeeper,
    ) -> None:
        """Describe the claimer; `run` does the work.

        Args:
            settings: Tell where PostgreSQL is, and how long leases last.
            worker_id: Of this worker.
            catalogue: What may be claimed; kept up to date here.
            clock: Gets samples of the database's time here.
            runs: Statements on runs.
            lanes: Statements on lanes.
            server: Statement that samples the clock.
            keeper: Is told when a cancel waits.
        """
        self._connection = HotConnection(settings)
        self._beside = HotConnection(settings)
        self._lease_s = settings.lease_s
        self._worker_id = worker_id
        self._catalogue = catalogue
        self._clock = clock
        self._runs = runs
        # It keeps a cursor, as the other does: for one connection.
        self._runs_beside = Runs(settings.schema)
        self._lanes = lanes
        self._server = server
        self._keeper = keeper
        self._sources = [_Source(place, LaneBook(), []) for place in Place]
        # Claims whose answer was lost: token and when they were sent.
        self._unanswered: dict[tuple[bytes, Place], float] = {}
        self._ask_at = 0.0
        self._poll_at = 0.0
        self._poll_cost_s = 0.0
        self._news = asyncio.Event()
        self._arrivals = asyncio.Event()
        # The tenants of each claim under way, and of the last one.
        self._claims: list[set[int]] = []
        self._claimed_last: set[int] = set()
        self._is_fresh = False

    # Called on the event loop by others.

    def hear(self, words: Iterable[Word]) -> None:
        """Take note of wake-ups."""
        for word in words:
            match word:
                case LaneReady():
                    self._hear_lane(word)
                case AllLanes():
                    for source in self._sources:
                        source.book.rewind()
                case CatalogueChanged():
                    self._catalogue.want_refresh()
                case BeatNow(worker_id) if worker_id == self._worker_id:
                    self._keeper.beat()
                case _:
                    continue
        self._news.set()
        self._arrivals.set()

    def missed(self) -> None:
        """Take note that wake-ups may have been missed: everything is looked at anew."""
        self._is_fresh = False
        self._catalogue.want_refresh()
        self._news.set()

    def rearmed(self, lane: LaneKey, run_at: int) -> None:
        """Take note of a run that this worker gave back, without waiting for its own notification."""
        now = self._now()
        for source in self._sources:
            source.book.wake(lane, run_at, now)
        self._news.set()

    def room(self) -> None:
        """Take note that more runs may be claimed."""
        self._news.set()

    # The loop.

    async def run(self, stop: asyncio.Event, executor: Executor) -> None:
        """Claim until `stop` is set.

        Raises:
            Stopped: `stop` was set while PostgreSQL was away.
        """
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._news.set())
        try:
            while not stop.is_set():
                self._news.clear()
                if not await retry_forever(lambda: self._round(executor), "claim", stop):
                    await self._sleep(executor)
                elif not any(source.book.has_ready(self._now()) for source in self._sources):
                    # Let what was claimed start before lanes that are probably empty are looked at: the executor
                    # makes a task for it in the next turn of the loop, which begins in the one after.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
        finally:
            stopping.cancel()
            await self._connection.drop()

    async def _round(self, executor: Executor) -> bool:
        """Do what is to be done now; whether there may be more to do at once."""
        async with self._connection.use() as conn:
            if self._connection.is_new:
                self._is_fresh = False
            if not self._is_fresh:
                await self._start_over(conn)
            if self._unanswered and (self._connection.is_new or time.monotonic() >= self._ask_at):
                await self._find_claimed(conn, executor)
            if self._catalogue.due_in_s() <= 0:
                await self._refresh(conn)
            if executor.suspects.are_left():
                return await self._serve_suspects(conn, executor)
            if time.monotonic() >= self._poll_at:
                self._poll_at = time.monotonic() + max(POLL_S, min(_POLL_COSTS * self._poll_cost_s, _POLL_S_MAX))
                self._poll_cost_s = 0.0
                for source in self._sources:
                    source.book.doubt()
            did_something = False
            for source in self._sources:
                did_something |= await self._serve_newcomers(conn, self._runs, source, executor)
                if source.wants(executor):
                    did_something |= await self._serve(conn, source, executor)
        return did_something

    async def _serve_suspects(self, conn: Connection, executor: Executor) -> bool:
        """Let a run that is to be executed alone begin, once nothing else is held here, nor being claimed."""
        if fresh := executor.suspects.fresh():
            await self._runs.set_aside(conn, fresh)
            executor.suspects.set_aside(fresh)
        run = None if self._claims or self._unanswered else executor.next_suspect()
        if run is not None and await self._runs.begin_alone(conn, run.key, run.timeout_s):
            executor.start_suspect(run)
        return False

    async def run_beside(self, stop: asyncio.Event, executor: Executor) -> None:
        """Claim for newcomers while `run` waits for a claim, on a connection that is opened for the first of them.

        Raises:
            Stopped: `stop` was set while PostgreSQL was away.
        """
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._arrivals.set())
        try:
            while not stop.is_set():
                self._arrivals.clear()
                if not await retry_forever(lambda: self._round_beside(executor), "claim", stop):
                    await self._arrivals.wait()
        finally:
            stopping.cancel()
            await self._beside.drop()

    async def _round_beside(self, executor: Executor) -> bool:
        """Claim for newcomers once, if there are any and `run` is at work with something else."""
        did_something = False
        for source in self._sources if self._claims else ():
            if self._newcomers(source, executor):
                async with self._beside.use() as conn:
                    did_something |= await self._serve_newcomers(conn, self._runs_beside, source, executor)
        return did_something

    async def _serve_newcomers(self, conn: Connection, runs: Runs, source: _Source, executor: Executor) -> bool:
        """Claim for newcomers, a few runs only, so that it is soon done; whether there were any."""
        newcomers = self._newcomers(source, executor)
        if newcomers:
            count = min(executor.want_beside(source.place), _BESIDE_MAX)
            offers = source.book.offers(self._now(), count, newcomers)
            await self._claim(conn, runs, source, executor, offers)
        return bool(newcomers)

    def _newcomers(self, source: _Source, executor: Executor) -> list[int]:
        """Return the tenants that have work and nothing waiting here, nor being claimed, while others have.

        What was claimed last counts for others, too: of runs that do nothing none is waiting for long.
        """
        if not source.target_ids or not executor.want_beside(source.place) or not source.book.has_ready(self._now()):
            return []
        known = set().union(self._claimed_last, *self._claims)
        return source.book.ready_tenants(
            _NEWCOMERS_MAX, lambda tenant: tenant in known or executor.has_waiting(source.place, tenant)
        )

    async def _serve(self, conn: Connection, source: _Source, executor: Executor) -> bool:
        """Claim from ready lanes, or else look for lanes that have work; False if there is neither.

        While one lane has a backlog it is always ready, and what falls due in others would never be looked
        for; so once a second a look comes first.
        """
        now = self._now()
        has_ready = source.book.has_ready(now)
        if not has_ready or time.monotonic() >= source.look_by:
            source.look_by = time.monotonic() + POLL_S
            if await self._look(conn, source, now):
                return True
        if has_ready:
            offers = source.book.offers(now, executor.want(source.place))
            await self._claim(conn, self._runs, source, executor, offers)
        return has_ready

    async def _look(self, conn: Connection, source: _Source, now: int) -> bool:
        """Look for lanes that have work, a page of them; False if all is known."""
        begun = time.monotonic()
        if (page := source.book.survey(now)) is not None:
            found = await self._lanes.survey(conn, page.after, page.horizon_run_at)
            is_last = len(found) < LANES_PER_PEEK_MAX
            source.book.surveyed(page, found, is_last=is_last, due_before=now + int(_PEEK_AHEAD_S * 1e6))
        elif source.book.is_unsure(now):
            asked = source.book.take_unsure(LANES_PER_PEEK_MAX, now)
            dues = await self._lanes.peek(conn, asked, source.target_ids, ahead_s=_PEEK_AHEAD_S)
            source.book.peeked(asked, dues, self._now())
        else:
            return False
        self._poll_cost_s += time.monotonic() - begun
        return True

    async def _claim(
        self, conn: Connection, runs: Runs, source: _Source, executor: Executor, offers: Sequence[Offer]
    ) -> None:
        token = uuid4().bytes
        sent_at = time.monotonic()
        tenants = source.book.tenants(offers)
        self._claims.append(tenants)
        try:
            claim = await runs.claim(
                conn,
                offers,
                source.target_ids,
                worker_id=self._worker_id,
                lease_token=token,
                lease_s=self._lease_s,
                limited=self._catalogue.limited(),
            )
        except BaseException:
            self._unanswered[token, source.place] = sent_at
            raise
        finally:
            self._claims.remove(tenants)
            self._claimed_last = tenants
        metrics.CLAIM_SECONDS.observe_many([time.monotonic() - sent_at])
        source.book.claimed(offers, claim.rows, claim.unfinished)
        if claim.rows:
            self._accept(executor, claim.rows, token, sent_at, source.place)

    def _accept(
        self,
        executor: Executor,
        rows: Sequence[tuple[Any, ...]],
        token: bytes,
        sent_at: float,
        place: Place,
    ) -> None:
        metrics.RUNS_CLAIMED.inc(len(rows))
        # The claim set the deadline to its own time and the timeout.
        waits_s = [(row[_DEADLINE_AT] - row[_RUN_AT]) / 1e6 - row[_TIMEOUT_S] for row in rows]
        metrics.RUN_WAIT_SECONDS.observe_many(waits_s)
        executor.accept(rows, token, sent_at, place)

    async def recover(self, executor: Executor, stop: asyncio.Event) -> None:
        """Ask once, when claiming has ended, for runs whose claim was not answered; the executor hands them back.

        Raises:
            Stopped: `stop` was set while PostgreSQL was away.
        """
        self._unanswered = {key: at for key, at in self._unanswered.items() if time.monotonic() < at + self._lease_s}
        if self._unanswered:
            await retry_forever(lambda: self._ask(executor), "claim", stop)

    async def _ask(self, executor: Executor) -> None:
        async with self._connection.use() as conn:
            await self._find_claimed(conn, executor)
        await self._connection.drop()

    async def _find_claimed(self, conn: Connection, executor: Executor) -> None:
        """Ask for the runs of claims whose answer was lost; a claim may still commit after its connection is gone."""
        self._ask_at = time.monotonic() + POLL_S
        for (token, place), sent_at in list(self._unanswered.items()):
            rows = await self._runs.find_claimed(conn, token, self._worker_id)
            if rows or time.monotonic() > sent_at + self._lease_s:
                del self._unanswered[token, place]
            if rows:
                _logger.info("claim_recovered", extra={"fields": {"count": len(rows)}})
                self._accept(executor, rows, token, sent_at, place)

    async def _start_over(self, conn: Connection) -> None:
        """Begin without horizons: another server may answer, with other rows."""
        await self._refresh(conn)
        for source in self._sources:
            source.book.reset()
        self._poll_at = 0.0
        self._is_fresh = True

    async def _refresh(self, conn: Connection) -> None:
        await self._server.sample_clock(conn, self._clock)
        has_new_targets = await self._catalogue.refresh(conn)
        queues, weights = self._catalogue.queues(), self._catalogue.weights()
        for source in self._sources:
            source.target_ids = self._catalogue.targets(source.place)
            source.book.set_queues(queues if source.target_ids else {}, weights)
            if has_new_targets:
                source.book.rewind()

    def _hear_lane(self, word: LaneReady) -> None:
        if not self._catalogue.is_known(word.queue_id):
            self._catalogue.want_refresh()
            return
        run_at = instant_us(word.run_at_us)
        lane = LaneKey(word.queue_id, word.priority)
        # What was made ready just now must not seem to lie ahead because our idea of the
        # database's time is a little behind: a claim that is too early costs less than a wait.
        now = self._now() + int(self._clock.uncertainty_s() * 1e6)
        for source in self._sources:
            source.book.wake(lane, run_at, now)

    async def _sleep(self, executor: Executor) -> None:
        """Wait for news, at most until something falls due."""
        wake_at = time.monotonic() + self._catalogue.due_in_s()
        # Of a source without room nothing is looked at before there is some, which is news.
        if sources := [source for source in self._sources if source.wants(executor)]:
            wake_at = min(wake_at, self._poll_at)
            dues = [due for source in sources if (due := source.book.next_due()) is not None]
            if dues:
                wake_at = min(wake_at, time.monotonic() + (min(dues) - self._now()) / 1e6)
        timer = asyncio.get_running_loop().call_later(max(0.0, wake_at - time.monotonic()), self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    def _now(self) -> int:
        """Return the database's time in microseconds since 2000."""
        return instant_us(int(self._clock.now_s() * 1e6))
