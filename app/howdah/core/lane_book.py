"""The lane book: what a process knows about the lanes that it may claim from. Pure.

A lane is *ready* when it may have due runs, *unsure* when nobody knows when its
next run is due (a peek will tell), else it sleeps until its next due time or a
wake-up. Ready lanes take turns: tenants get equal shares, each tenant's queues too or
by their weights, and priorities of one queue 16 : 8 : 4 : 2 : 1 from granted to low,
so that nothing starves.

Where there are more lanes than one peek can look at, nearly all of them are empty. A
*survey* then goes through those that are not, page by page, and only these are looked
at.

Each lane has a horizon, below which it is known to be drained, so that claims
do not walk dead index entries, nor runs for other workers, again and again: the
last (run_at, task id) claimed, but never less than 500 ms ago, since transactions
commit late; or 10 s before a peek that found nothing due. A wake-up that names an
older run_at takes it back once.

Lanes of a queue that is paused, or whose limits leave no room, are closed: claims and
peeks pass them by. Their horizons stay where they were, and they are looked at again
when they open, which a peek has said when, or a wake-up says.

Instants are microseconds since 2000 by the database's clock.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from howdah.core.lane_survey import LaneSurvey
from howdah.core.model import ClaimedRun, Horizon, LaneKey, Offer
from howdah.core.shares import Turn, split, weigh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from howdah.core.lane_survey import Page
    from howdah.core.model import Due

# A claim visits this many lanes, or up to the most where they hold few runs each, so that it brings many.
LANES_PER_CLAIM: Final = 64
LANES_PER_CLAIM_MAX: Final = 256
# Of what was asked for. Chosen.
_YIELD_LOW: Final = 0.6
_YIELD_HIGH: Final = 0.95
PRIORITIES: Final = (4, 3, 2, 1, 0)
WEIGHTS: Final[Mapping[int, int]] = {4: 16, 3: 8, 2: 4, 1: 2, 0: 1}

# How late a transaction that made a run ready may commit without anybody telling.
HORIZON_LAG_US: Final = 500_000
# The same, where a lane is known to be drained only because a peek found nothing due: its next claim may be long in
# coming, and until then the poll still finds what was made ready in a transaction that took seconds.
PEEK_LAG_US: Final = 10_000_000
# A drained lane is peeked at so much later: if a wake-up comes before, which is the rule under load, the claim that
# follows makes the peek needless, and does not have to wait for it.
_PEEK_DELAY_US: Final = 5_000
# How long a lane whose due runs could not be had (somebody holds their row locks) is
# left alone: from 1 ms, doubling, to the interval of the poll.
_MISS_PAUSE_US: Final = 1_000
_MISS_PAUSE_US_MAX: Final = 1_000_000

# More lanes than this are surveyed before they are peeked at.
PEEKED_MAX: Final = 1_000

# Places in the order of dues that mean nothing any more, beyond which they are cleared away: with a run that is
# due next week, a busy lane leaves thousands a minute. Chosen.
_STALE_DUES_MAX: Final = 100

_NO_ID: Final = bytes(16)
Position: TypeAlias = tuple[int, bytes]
START: Final[Position] = (0, _NO_ID)

# Rows stay plain tuples: making a NamedTuple of each takes longer than all that is done with it here.
_TASK_ID, _QUEUE_ID, _PRIORITY, _RUN_AT = map(ClaimedRun._fields.index, ("task_id", "queue_id", "priority", "run_at"))


class _Lane:
    __slots__ = ("credit", "due", "floor", "is_ready", "is_woken", "key", "misses", "reached", "tenant_id")

    def __init__(self, key: LaneKey, tenant_id: int) -> None:
        self.key = key
        self.tenant_id = tenant_id
        self.reached: Position = START
        self.floor: Position | None = None
        self.due: int | None = None
        self.is_ready = False
        self.is_woken = False
        self.credit = 0.0
        self.misses = 0

    @property
    def weight(self) -> int:
        return WEIGHTS[self.key.priority]

    def horizon(self, now: int) -> Position:
        return min(self.floor or self.reached, (now - HORIZON_LAG_US, _NO_ID))


class LaneBook:
    """The lanes of a worker, or of a line of pull consumers, as far as their targets are claimed together."""

    def __init__(self) -> None:
        """Begin without lanes."""
        self._weights: Mapping[int, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._lanes: dict[LaneKey, _Lane] = {}
        # tenant -> queue -> priority; the order of the first two is the rotation.
        self._ready: dict[int, dict[int, dict[int, _Lane]]] = {}
        self._turns: dict[int, Turn] = {}
        self._lanes_per_claim = LANES_PER_CLAIM
        self._unsure: dict[LaneKey, _Lane] = {}
        self._peek_at = 0
        self._offered_at = 0
        self._asked_at = 0
        self._survey = LaneSurvey()
        self._dues: list[tuple[int, LaneKey]] = []

    def set_queues(self, queues: Mapping[int, int], weights: Mapping[int, int] | None = None) -> None:
        """Take note of all queues to claim from; lanes of new ones are unsure, others are forgotten.

        Args:
            queues: Tenant by queue.
            weights: Weight by queue; 1 where there is none. None leaves them as they are.
        """
        if weights is not None and weights != self._weights:
            self._weights = dict(weights)
            self._turns = {}
        known = {key.queue_id for key in self._lanes}
        for key in [key for key in self._lanes if key.queue_id not in queues]:
            self._forget(self._lanes.pop(key))
        new = {
            key: _Lane(key, queues[queue_id])
            for queue_id in queues.keys() - known
            for key in (LaneKey(queue_id, priority) for priority in PRIORITIES)
        }
        self._lanes |= new
        if len(new) > PEEKED_MAX:
            self._survey.want_anew()
        else:
            self._unsure |= new
            self._peek_at = 0

    def reset(self) -> None:
        """Forget what was known of all lanes: after a reconnect, another server may answer."""
        queues = {key.queue_id: lane.tenant_id for key, lane in self._lanes.items()}
        self._clear()
        self.set_queues(queues)

    def rewind(self) -> None:
        """Look at every lane from its beginning once: anything may lie below the horizons."""
        for lane in self._lanes.values():
            lane.floor = START
        if len(self._lanes) > PEEKED_MAX:
            self._survey.want_anew()
        else:
            self.doubt()

    def doubt(self) -> None:
        """Make every lane that is not ready unsure, or want a survey of them: the poll."""
        if len(self._lanes) > PEEKED_MAX:
            self._survey.want()
        else:
            self._unsure.update((key, lane) for key, lane in self._lanes.items() if not lane.is_ready)
            self._peek_at = 0

    def survey(self, now: int) -> Page | None:
        """Return which lanes a survey looks at next, if one is wanted or under way."""
        return self._survey.page(now)

    def surveyed(self, page: Page, found: Sequence[tuple[LaneKey, int]], *, is_last: bool, due_before: int) -> None:
        """Learn from a page of a survey.

        Args:
            page: What `survey` gave.
            found: Lanes in which runs wait, in order, and when the first of each is due.
            is_last: There are no more.
            due_before: What is due later is left to another survey.
        """
        for key, run_at in found:
            lane = self._lanes.get(key)
            if lane is None or lane.is_ready or run_at >= due_before:
                continue
            if run_at <= page.begun_at and not lane.misses:
                # Probably there is something for us; a claim tells as well as a peek does.
                self._set_ready(lane)
            else:
                self._unsure[key] = lane
                self._peek_at = 0
                if run_at > page.begun_at:
                    # For another worker, maybe; but where other lanes are always ready a peek may be long in coming.
                    self._set_due(lane, run_at, page.begun_at)
        self._survey.turn(page, None if is_last else found[-1][0])

    def wake(self, key: LaneKey, run_at: int, now: int) -> None:
        """Take note of a run that is due at `run_at`, if the lane is known."""
        lane = self._lanes.get(key)
        if lane is None:
            return
        position = (run_at, _NO_ID)
        if position < (lane.floor or lane.reached):
            lane.floor = position
        lane.misses = 0
        lane.is_woken |= run_at <= now
        self._set_due(lane, run_at, now)

    def has_ready(self, now: int) -> bool:
        """Tell whether a claim may find something; lanes that fell due become ready."""
        while self._dues and self._dues[0][0] <= now:
            due, key = heapq.heappop(self._dues)
            lane = self._lanes.get(key)
            if lane is not None and lane.due == due:
                self._set_ready(lane)
        return bool(self._ready)

    def next_due(self) -> int | None:
        """Return when there is something to do next, as far as is known: a lane falls due, or is to be peeked at."""
        peek_at = self._peek_at if self._unsure else None
        while self._dues:
            due, key = self._dues[0]
            lane = self._lanes.get(key)
            if lane is not None and lane.due == due:
                return due if peek_at is None else min(due, peek_at)
            heapq.heappop(self._dues)
        return peek_at

    def tenants(self, offers: Iterable[Offer]) -> set[int]:
        """Return whose lanes these are."""
        return {self._lanes[offer.lane].tenant_id for offer in offers}

    def ready_tenants(self, count_max: int, is_known: Callable[[int], bool]) -> list[int]:
        """Return the tenants with ready lanes that are not known, if others are; none if there are too many."""
        if len(self._ready) < 2:
            return []
        found = list(islice((tenant for tenant in self._ready if not is_known(tenant)), count_max + 1))
        return found if len(found) <= min(count_max, len(self._ready) - 1) else []

    def offers(self, now: int, want: int, tenants: Sequence[int] | None = None) -> list[Offer]:
        """Choose the lanes of one claim and their shares, and move them to the end of the rotation.

        Args:
            now: The database's time.
            want: Runs wanted, at least 1; the shares add up to it if any lane is ready.
            tenants: Whose lanes to choose from, all of them ready; None for all.

        Returns:
            At most `LANES_PER_CLAIM_MAX` offers, granted and high priorities first within a queue.
        """
        self._offered_at = now
        if tenants is None and (lane := self._only_ready()) is not None:
            return [self._offer(lane, now, want)]
        chosen = self._choose(want, self._ready if tenants is None else tenants)
        offers: list[Offer] = []
        for tenant_id, tenant_share in zip(chosen, split(want, len(chosen)), strict=True):
            queue_ids = chosen[tenant_id]
            queues = self._ready.pop(tenant_id)
            self._ready[tenant_id] = queues
            for queue_id, share in zip(queue_ids, self._split_tenant(queue_ids, tenant_share), strict=True):
                if share:
                    lanes = queues[queue_id] = queues.pop(queue_id)
                    ordered = sorted(lanes.values(), key=lambda lane: -lane.key.priority)
                    shares = zip(ordered, weigh(ordered, share), strict=True)
                    offers += (self._offer(lane, now, count) for lane, count in shares if count)
        return offers

    def claimed(
        self, offers: Sequence[Offer], rows: Iterable[Sequence[Any]], unfinished: Iterable[LaneKey] = ()
    ) -> None:
        """Learn from the answer of a claim: where each lane stands, and which are drained.

        Args:
            offers: What was offered.
            rows: Claimed runs, with `ClaimedRun`'s fields.
            unfinished: Lanes that may have more although they yielded less than their shares.
        """
        found: dict[tuple[int, int], list[Position]] = {offer.lane: [] for offer in offers}
        for row in rows:
            found[row[_QUEUE_ID], row[_PRIORITY]].append((row[_RUN_AT], row[_TASK_ID]))
        if len(offers) > LANES_PER_CLAIM // 2:
            self._adapt(sum(map(len, found.values())) / sum(offer.share for offer in offers))
        for key in unfinished:
            if (lane := self._lanes.get(key)) is not None:
                lane.is_woken = True
        for offer in offers:
            lane = self._lanes.get(offer.lane)
            if lane is not None:
                self._learn(lane, offer, found[offer.lane])

    def take_unsure(self, count_max: int, now: int) -> list[Horizon]:
        """Take lanes to peek at, with where to begin in each; they are not unsure any more."""
        self._asked_at = now
        keys = list(islice(self._unsure, count_max))
        return [Horizon(key, *self._unsure.pop(key).horizon(now)) for key in keys]

    def peeked(self, asked: Sequence[Horizon], dues: Iterable[Due], now: int) -> None:
        """Learn from the answer of a peek at the lanes that `take_unsure` gave."""
        found = {due.lane: due for due in dues}
        for each in asked:
            lane = self._lanes.get(each.lane)
            due = found.get(each.lane)
            if lane is None:
                continue
            if due is not None and due.is_closed:
                # Whatever lies in it, and comes to lie in it until it opens, nobody has looked at.
                asked_from = (each.run_at, each.task_id)
                lane.floor, lane.misses = min(lane.floor or asked_from, asked_from), 0
            elif not lane.is_ready and (due is None or due.run_at is None or due.run_at > now):
                # Between where the peek began and now there is nothing, unless an older run was named meanwhile.
                if lane.floor is None or lane.floor >= (each.run_at, each.task_id):
                    lane.floor = None
                lane.reached = max(lane.reached, (self._asked_at - PEEK_LAG_US, _NO_ID))
            if not lane.is_ready and due is not None and due.run_at is not None:
                self._set_due(lane, self._after_misses(lane, due.run_at, now), now)

    @staticmethod
    def _after_misses(lane: _Lane, run_at: int, now: int) -> int:
        """Return when to claim what is due at `run_at`: later, if it was due before and could not be had."""
        if run_at > now or not lane.misses:
            return run_at
        return now + min(_MISS_PAUSE_US << min(lane.misses - 1, 10), _MISS_PAUSE_US_MAX)

    def is_unsure(self, now: int) -> bool:
        """Tell whether there are lanes to peek at now."""
        return bool(self._unsure) and now >= self._peek_at

    def _only_ready(self) -> _Lane | None:
        """Return the only ready lane, if there is just one: it needs no turns, which a single task waits for."""
        queues = next(iter(self._ready.values())) if len(self._ready) == 1 else {}
        lanes = next(iter(queues.values())) if len(queues) == 1 else {}
        return next(iter(lanes.values())) if len(lanes) == 1 else None

    def _choose(self, want: int, tenants: Iterable[int]) -> dict[int, list[int]]:
        """Choose queues by tenant: in turns over the tenants, until lanes or runs wanted are used up.

        With weights there are more queues than runs wanted: which of them it is that get one, their credit decides.
        """
        chosen: dict[int, list[int]] = {}
        turns: deque[tuple[int, Iterator[int]]] = deque(
            (tenant_id, iter(self._ready[tenant_id])) for tenant_id in islice(tenants, min(want, self._lanes_per_claim))
        )
        lane_count = queue_count = 0
        while turns and (queue_count < want or self._weights):
            tenant_id, queue_ids = turns.popleft()
            queue_id = next(queue_ids, None)
            if queue_id is None:
                continue
            lane_count += len(self._ready[tenant_id][queue_id])
            if lane_count > self._lanes_per_claim:
                break
            queue_count += 1
            chosen.setdefault(tenant_id, []).append(queue_id)
            turns.append((tenant_id, queue_ids))
        return chosen

    def _split_tenant(self, queue_ids: Sequence[int], share: int) -> list[int]:
        """Split the share of a tenant among its queues."""
        if not self._weights:
            return split(share, len(queue_ids))
        turns = [self._turns.setdefault(each, Turn(self._weights.get(each, 1))) for each in queue_ids]
        return weigh(turns, share)

    @staticmethod
    def _offer(lane: _Lane, now: int, share: int) -> Offer:
        run_at, task_id = lane.horizon(now)
        # From here on both are for what is heard while the claim is under way.
        lane.is_woken, lane.floor = False, None
        return Offer(lane.key, run_at, task_id, share)

    def _adapt(self, yielded: float) -> None:
        """Visit more lanes in a claim if the last one brought little of what it asked many lanes for."""
        if yielded < _YIELD_LOW:
            self._lanes_per_claim = min(2 * self._lanes_per_claim, LANES_PER_CLAIM_MAX)
        elif yielded > _YIELD_HIGH:
            self._lanes_per_claim = max(self._lanes_per_claim - LANES_PER_CLAIM // 4, LANES_PER_CLAIM)

    def _learn(self, lane: _Lane, offer: Offer, found: list[Position]) -> None:
        last = max(found, default=START)
        if not found:
            # Drained, as a peek will confirm; or the queue is paused, or the rows are locked: none of it is forgotten.
            begun = (offer.horizon_run_at, offer.horizon_task_id)
            lane.floor = min(lane.floor or begun, begun)
        elif len(found) >= offer.share and last < lane.reached:
            # Taken back by a wake-up; there may be more before the old horizon.
            lane.floor = min(lane.floor or last, last)
        lane.reached = max(lane.reached, last)
        lane.misses = 0 if found else lane.misses + 1
        if len(found) < offer.share and not lane.is_woken:
            self._unready(lane)
            if not self._unsure:
                self._peek_at = self._offered_at + _PEEK_DELAY_US
            self._unsure[lane.key] = lane

    def _set_due(self, lane: _Lane, run_at: int, now: int) -> None:
        if run_at <= now:
            self._set_ready(lane)
        # Of a ready lane a peek will tell, once it is drained.
        elif not lane.is_ready and (lane.due is None or run_at < lane.due):
            lane.due = run_at
            heapq.heappush(self._dues, (run_at, lane.key))
            # A lane that wakes before it is due leaves its place behind, and takes another when it sleeps again.
            if len(self._dues) > 2 * len(self._lanes) + _STALE_DUES_MAX:
                self._dues = [(each.due, each.key) for each in self._lanes.values() if each.due is not None]
                heapq.heapify(self._dues)

    def _set_ready(self, lane: _Lane) -> None:
        lane.due = None
        self._unsure.pop(lane.key, None)
        if not lane.is_ready:
            lane.is_ready = True
            lane.credit = 0.0
            self._ready.setdefault(lane.tenant_id, {}).setdefault(lane.key.queue_id, {})[lane.key.priority] = lane

    def _unready(self, lane: _Lane) -> None:
        if not lane.is_ready:
            return
        lane.is_ready = False
        queues = self._ready[lane.tenant_id]
        lanes = queues[lane.key.queue_id]
        del lanes[lane.key.priority]
        if not lanes:
            del queues[lane.key.queue_id]
            self._turns.pop(lane.key.queue_id, None)
            if not queues:
                del self._ready[lane.tenant_id]

    def _forget(self, lane: _Lane) -> None:
        self._unready(lane)
        self._unsure.pop(lane.key, None)
