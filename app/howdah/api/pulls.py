"""Consumers that claim over HTTP: their lines, their rows among the workers, and the wake-ups for both."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid4

from howdah.api.pull_line import Line, LineKey
from howdah.core.errors import DatabaseUnavailable
from howdah.core.model import ClaimedRun, LeaseKey
from howdah.core.store.workers import PullRow
from howdah.core.wake import AllLanes, CatalogueChanged, LaneReady

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from howdah.api.database import Database
    from howdah.api.hot import HotPool
    from howdah.api.pull_line import Entry, Row
    from howdah.api.reporter import Reporter
    from howdah.core.store.targets import Targets
    from howdah.core.store.workers import Workers
    from howdah.core.wake import Word

# A consumer is silent after 60 s (workers.silent_after_s).
SEEN_EVERY_S: Final = 10.0
# A consumer whose claims differ in size or lease has them written no more often.
REGISTER_PAUSE_S: Final = 5.0
# A line that nobody waits in forgets its horizons after so long.
LINE_IDLE_S: Final = 60.0
# Names are made by clients: of more than this, those that nobody needs now are forgotten.
LINES_MAX: Final = 10_000
CONSUMERS_MAX: Final = 10_000

_TENANT_ID, _TASK = map(ClaimedRun._fields.index, ("tenant_id", "task_id"))

_log: Final = logging.getLogger(__name__)


class _Registered(NamedTuple):
    worker_id: int
    row: PullRow
    written_at: float


class Pulls:
    """Serves claims over HTTP."""

    def __init__(
        self, database: Database, hot: HotPool, targets: Targets, workers: Workers, reporter: Reporter
    ) -> None:
        """Claim over the connections of `hot`; what nobody is there for goes back through `reporter`."""
        self._database = database
        self._hot = hot
        self._targets = targets
        self._workers = workers
        self._reporter = reporter
        self._lines: dict[LineKey, Line] = {}
        self._registered: dict[UUID, _Registered] = {}
        self._seen: set[int] = set()

    def line(self, key: LineKey) -> Line:
        """Return the line of a claim."""
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= LINES_MAX:
                self._lines = {known: line for known, line in self._lines.items() if not line.is_idle}
            line = self._lines[key] = Line(key, self._database, self._hot, self._targets, self._give_back)
        return line

    async def register(self, key: LineKey, consumer: str, run_count_max: int, lease_s: float) -> int:
        """Return the id of a consumer among the workers, and see that its row says that it lives.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        pull_key = _digest(key, consumer)
        row = PullRow(
            key.tenant_id, pull_key, consumer, key.queue, key.handlers, key.takes_http, run_count_max, lease_s
        )
        known = self._registered.get(pull_key)
        now = time.monotonic()
        if known is not None and (known.row == row or now < known.written_at + REGISTER_PAUSE_S):
            self._seen.add(known.worker_id)
            return known.worker_id
        async with self._database.connection() as conn:
            worker_id = await self._workers.register_pull(conn, row)
        if len(self._registered) >= CONSUMERS_MAX:
            self._registered.clear()
        self._registered[pull_key] = _Registered(worker_id, row, now)
        return worker_id

    async def find_claimed(self, token: bytes, worker_id: int) -> list[Row]:
        """Return those runs of an earlier claim that are still leased.

        Raises:
            DatabaseUnavailable: PostgreSQL is away.
        """
        return await self._hot.repeat(lambda desk: desk.runs.find_claimed(desk.conn, token, worker_id))

    def seen(self, worker_ids: Iterable[int]) -> None:
        """Take note of signs of life; ids of workers do no harm."""
        self._seen.update(worker_ids)

    def hear(self, words: Iterable[Word]) -> None:
        """Take note of wake-ups."""
        if not self._lines:
            return
        by_queue: dict[int, list[LaneReady]] = {}
        for word in words:
            match word:
                case LaneReady():
                    by_queue.setdefault(word.queue_id, []).append(word)
                case AllLanes():
                    for line in self._lines.values():
                        line.rewind()
                case CatalogueChanged():
                    for line in self._lines.values():
                        line.resolve()
                case _:
                    continue
        if by_queue:
            for line in self._lines.values():
                for ready in by_queue.get(line.queue_id or 0, ()):
                    line.wake(ready)

    def missed(self) -> None:
        """Take note that wake-ups may have been missed, and that another server may answer now."""
        self._registered.clear()
        for line in self._lines.values():
            line.reset()

    async def settle(self, timeout_s: float) -> None:
        """Wait until no line works any more, for `timeout_s` at most: the process is to stop, and nobody waits."""
        if working := [line.working for line in self._lines.values() if line.working is not None]:
            await asyncio.wait(working, timeout=timeout_s)

    async def run(self) -> None:
        """Record signs of life, and forget idle lines, until cancelled."""
        while True:
            await asyncio.sleep(SEEN_EVERY_S)
            now = time.monotonic()
            for key, line in list(self._lines.items()):
                if line.is_idle and line.idle_since < now - LINE_IDLE_S:
                    del self._lines[key]
            seen = self._seen.union(*(line.holders() for line in self._lines.values()))
            self._seen = set()
            if not seen:
                continue
            try:
                async with self._database.connection() as conn:
                    await self._workers.touch_pull(conn, seen)
            except DatabaseUnavailable as reason:
                self._seen |= seen
                _log.info("consumers_not_touched", extra={"fields": {"reason": str(reason)}})

    def _give_back(self, entry: Entry, rows: Sequence[Row]) -> None:
        if rows:
            keys = [LeaseKey(row[_TENANT_ID], row[_TASK], entry.token) for row in rows]
            _log.info("claim_given_back", extra={"fields": {"count": len(rows)}})
            self._reporter.release(keys)


def new_token() -> bytes:
    """Draw a lease token."""
    return uuid4().bytes


def _digest(key: LineKey, consumer: str) -> UUID:
    text = "\0".join([consumer, key.queue, "http" if key.takes_http else "", *key.handlers])
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
