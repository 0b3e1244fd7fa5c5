"""The lane book: shares, turns, horizons and what wake-ups change."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.lane_book import HORIZON_LAG_US, LANES_PER_CLAIM, PEEK_LAG_US, PEEKED_MAX, WEIGHTS, LaneBook
from howdah.core.lane_survey import LAG_US, Page
from howdah.core.model import Due, LaneKey, Offer

NOW = 10_000_000_000
ZERO = bytes(16)
NORMAL = 1


def book_of(lanes: dict[LaneKey, int], *, is_ready: bool = True) -> LaneBook:
    """A book that knows the queues of these lanes (tenant by lane), all of them peeked at; ready ones are woken."""
    book = LaneBook()
    book.set_queues({lane.queue_id: tenant for lane, tenant in lanes.items()})
    while book.is_unsure(NOW):
        book.peeked(book.take_unsure(1000, NOW), [], NOW)
    if is_ready:
        for lane in lanes:
            book.wake(lane, NOW - 1, NOW)
    return book


def large_book() -> LaneBook:
    """A book of more lanes than one peek can look at, of which nothing is known yet."""
    book = LaneBook()
    book.set_queues(dict.fromkeys(range(1, PEEKED_MAX), 1))
    return book


def survey(book: LaneBook, now: int, *found: tuple[LaneKey, int], is_last: bool = True) -> Page:
    """Let the book learn from one page of its survey, and return what was asked."""
    asked = book.survey(now)
    assert asked is not None
    book.surveyed(asked, found, is_last=is_last, due_before=now + 1_000)
    return asked


def row(lane: LaneKey, run_at: int, task_id: bytes = ZERO) -> tuple[object, ...]:
    """A claimed run, as far as the book looks at it."""
    return (1, task_id, lane.queue_id, 0, lane.priority, 1, 1, run_at)


def fill(offers: list[Offer], run_at: int = NOW - 1) -> list[tuple[object, ...]]:
    """What a claim returns from lanes that have more than was asked for."""
    return [row(offer.lane, run_at) for offer in offers for _ in range(offer.share)]


lanes_strategy = st.dictionaries(
    st.builds(LaneKey, st.integers(1, 40), st.sampled_from(list(WEIGHTS))),
    st.just(0),
    min_size=1,
    max_size=120,
).map(lambda lanes: {lane: lane.queue_id % 5 for lane in lanes})


@given(lanes_strategy, st.integers(1, 500))
def test_shares_add_up_to_what_is_wanted(lanes: dict[LaneKey, int], want: int) -> None:
    """The shares of a claim add up to the runs wanted, over at most 64 lanes, each with at least one."""
    offers = book_of(lanes).offers(NOW, want)

    assert sum(offer.share for offer in offers) == want
    assert len(offers) <= LANES_PER_CLAIM
    assert all(offer.share >= 1 for offer in offers)
    assert len({offer.lane for offer in offers}) == len(offers)


@given(lanes_strategy, st.integers(1, 40))
def test_every_lane_that_waits_is_visited_within_bounded_rounds(lanes: dict[LaneKey, int], want: int) -> None:
    """No lane starves, whatever its priority and however many others there are, even if none is ever drained."""
    book = book_of(lanes)
    rounds_max = 2 + sum(WEIGHTS.values()) * len({lane.queue_id for lane in lanes})
    visited: set[LaneKey] = set()
    for _ in range(rounds_max):
        offers = book.offers(NOW, want)
        visited |= {offer.lane for offer in offers}
        book.claimed(offers, fill(offers))

    assert visited == set(lanes)


def test_tenants_get_equal_shares_however_many_queues_they_have() -> None:
    """A tenant with ten queues gets no more than one with a single queue."""
    lanes = {LaneKey(1, NORMAL): 1, **{LaneKey(queue, NORMAL): 2 for queue in range(2, 12)}}
    offers = book_of(lanes).offers(NOW, 100)
    shares = Counter({offer.lane: offer.share for offer in offers})

    assert shares[LaneKey(1, NORMAL)] == 50
    assert {shares[lane] for lane in lanes if lane.queue_id > 1} == {5}


@pytest.mark.parametrize("want", [1, 7, 500])
def test_priorities_of_a_queue_share_by_weight(want: int) -> None:
    """Over time the four priorities of a queue get 8 : 4 : 2 : 1, also when one run is claimed at a time."""
    lanes = {LaneKey(1, priority): 1 for priority in range(4)}
    book, total = book_of(lanes), Counter[int]()
    while total.total() < 15_000:
        offers = book.offers(NOW, want)
        total.update({offer.lane.priority: offer.share for offer in offers})
        book.claimed(offers, fill(offers))
    count = total.total()

    for priority, weight in ((3, 8), (2, 4), (1, 2), (0, 1)):
        assert total[priority] == pytest.approx(count * weight / 15, rel=0.01)


def test_lane_that_gave_less_than_its_share_is_left_until_a_wake_up() -> None:
    """A drained lane is peeked at, not claimed from, and a wake-up makes it ready again."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    offers = book.offers(NOW, 10)
    book.claimed(offers, [row(lane, NOW - 1)])

    assert not book.has_ready(NOW)
    assert [each.lane for each in book.take_unsure(10, NOW)] == [lane]
    book.wake(lane, NOW, NOW)
    assert book.has_ready(NOW)


def test_wake_up_during_a_claim_keeps_the_lane_ready() -> None:
    """A claim that began before a task was committed may miss it, so its empty answer does not drain the lane."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    offers = book.offers(NOW, 10)
    book.wake(lane, NOW, NOW)
    book.claimed(offers, [])

    assert book.has_ready(NOW)


def test_horizon_follows_the_last_claimed_pair_but_lags() -> None:
    """The next claim begins at the last (run_at, task id) claimed, and never less than 500 ms ago."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    old = NOW - 10 * HORIZON_LAG_US
    book.claimed(book.offers(NOW, 2), [row(lane, old, b"a" * 16), row(lane, old, b"b" * 16)])
    [second] = book.offers(NOW, 2)
    book.claimed([second], [row(lane, NOW - 2), row(lane, NOW - 1)])
    [third] = book.offers(NOW, 2)

    assert second[1:3] == (old, b"b" * 16)
    assert third[1:3] == (NOW - HORIZON_LAG_US, ZERO)


def test_wake_up_below_the_horizon_takes_it_back_once() -> None:
    """A run that became ready below the horizon is found by the next claim, and the horizon then stands as before."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    old, older = NOW - 10 * HORIZON_LAG_US, NOW - 90 * HORIZON_LAG_US
    book.claimed(book.offers(NOW, 1), [row(lane, old)])
    book.wake(lane, older, NOW)
    [lowered] = book.offers(NOW, 5)
    book.claimed([lowered], [row(lane, older)])
    book.wake(lane, NOW, NOW)
    [after] = book.offers(NOW, 5)

    assert lowered.horizon_run_at == older
    assert after.horizon_run_at == old


def test_full_claim_from_a_lowered_horizon_goes_on_from_its_last_run() -> None:
    """If more lies between a wake-up's run_at and the old horizon than one claim takes, nothing is skipped."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    old, older = NOW - 10 * HORIZON_LAG_US, NOW - 90 * HORIZON_LAG_US
    book.claimed(book.offers(NOW, 1), [row(lane, old)])
    book.wake(lane, older, NOW)
    book.claimed(book.offers(NOW, 1), [row(lane, older + 5)])
    [offer] = book.offers(NOW, 1)

    assert offer.horizon_run_at == older + 5


def test_rewind_begins_every_lane_anew_once() -> None:
    """After `*` nothing is hidden below any horizon; what a peek finds nothing in keeps its horizon."""
    full, empty = LaneKey(1, NORMAL), LaneKey(2, NORMAL)
    book = book_of({full: 1, empty: 1})
    old = NOW - 10 * HORIZON_LAG_US
    offers = book.offers(NOW, 4)
    book.claimed(offers, [row(full, old), row(empty, old)])
    book.rewind()
    asked = book.take_unsure(1000, NOW)
    book.peeked(asked, [Due(full, old - 5, -1.0)], NOW)
    book.wake(empty, NOW, NOW)
    horizons = {offer.lane: offer.horizon_run_at for offer in book.offers(NOW, 4)}

    assert {each.run_at for each in asked} == {0}
    assert horizons == {full: 0, empty: old}


def test_peek_that_finds_nothing_due_raises_the_horizon() -> None:
    """Runs for other workers, which a peek passed by, are not walked again by each claim and each peek."""
    lane = LaneKey(1, NORMAL)
    book = LaneBook()
    book.set_queues({1: 1})
    book.peeked(book.take_unsure(10, NOW), [], NOW + 5)
    book.wake(lane, NOW, NOW)
    [offer] = book.offers(NOW, 1)

    assert offer.horizon_run_at == NOW - PEEK_LAG_US


def test_rewind_during_a_peek_is_not_forgotten() -> None:
    """What `*` announced while a peek was under way is looked for, although the peek found nothing."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.claimed(book.offers(NOW, 1), [])
    asked = book.take_unsure(10, NOW)
    book.rewind()
    book.peeked(asked, [], NOW)
    again = {each.lane: each.run_at for each in book.take_unsure(10, NOW)}

    assert again[lane] == 0


def test_reset_forgets_horizons() -> None:
    """After a reconnect every lane is looked at from its beginning."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.claimed(book.offers(NOW, 1), [row(lane, NOW - 5)])
    book.reset()

    assert not book.has_ready(NOW)
    assert {each.run_at for each in book.take_unsure(1000, NOW)} == {0}


def test_sleeping_lane_wakes_at_its_next_due_time() -> None:
    """A delayed run is claimed exactly when it falls due, whether a wake-up or a peek told of it."""
    told, peeked = LaneKey(1, NORMAL), LaneKey(2, NORMAL)
    book = book_of({told: 1, peeked: 1}, is_ready=False)
    book.doubt()
    book.wake(told, NOW + 100, NOW)
    book.peeked(book.take_unsure(1000, NOW), [Due(peeked, NOW + 200, 0.0002)], NOW)

    assert not book.has_ready(NOW)
    assert book.next_due() == NOW + 100
    assert book.has_ready(NOW + 100)
    assert [offer.lane for offer in book.offers(NOW + 100, 10)] == [told]
    assert book.next_due() == NOW + 200


def test_due_run_that_cannot_be_had_is_tried_ever_more_rarely() -> None:
    """While somebody holds the lock of a lane's due run, claims of that lane become rare instead of a busy loop."""
    lane = LaneKey(1, NORMAL)
    book, now, claims = book_of({lane: 1}), NOW, 0
    while now < NOW + 10_000_000:
        if book.has_ready(now):
            book.claimed(book.offers(now, 1), [])
            claims += 1
            book.peeked(book.take_unsure(10, now), [Due(lane, NOW - 1, -1.0)], now)
        due = book.next_due()
        assert due is not None
        now = max(due, now + 1)

    assert claims < 25


def test_lane_that_keeps_waking_before_it_is_due_takes_no_memory() -> None:
    """A busy lane with a run that is due next week does not leave a mark for each time it was drained."""
    lane = LaneKey(1, NORMAL)
    book, now = book_of({lane: 1}), NOW
    for _ in range(5_000):
        now += 1_000
        book.wake(lane, now, now)
        book.claimed(book.offers(now, 1), [])
        book.peeked(book.take_unsure(10, now), [Due(lane, NOW * 100, 900.0)], now)

    assert book.next_due() == NOW * 100
    assert len(book._dues) < 200


def test_lanes_of_unknown_and_gone_queues_are_not_kept() -> None:
    """Only queues of the catalogue are claimed from."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.set_queues({})
    book.wake(LaneKey(9, NORMAL), NOW, NOW)

    assert not book.has_ready(NOW)
    assert not book.is_unsure(NOW)
    assert book.next_due() is None


def test_survey_leaves_only_lanes_that_have_work_to_peek_at() -> None:
    """Of very many lanes only those are peeked at in which a survey found a run that is due soon."""
    book = large_book()
    due, soon, later, unknown = LaneKey(2, NORMAL), LaneKey(3, NORMAL), LaneKey(4, NORMAL), LaneKey(99_999, NORMAL)

    assert not book.is_unsure(NOW)
    assert survey(book, NOW, (due, NOW - 5), (soon, NOW + 5), (later, NOW + 5_000), (unknown, NOW)) == Page(
        LaneKey(-1, -1), 0, NOW
    )
    assert [offer.lane for offer in book.offers(NOW, 10)] == [due]
    assert [each.lane for each in book.take_unsure(1000, NOW)] == [soon]
    assert book.survey(NOW) is None


def test_due_run_that_a_survey_finds_again_and_again_is_peeked_at() -> None:
    """A lane full of other workers' runs costs a claim once, and then a peek, which its horizon makes short."""
    book, lane = large_book(), LaneKey(3, NORMAL)
    survey(book, NOW, (lane, NOW - 5))
    book.claimed(book.offers(NOW, 10), [])
    book.peeked(book.take_unsure(10, NOW), [], NOW)
    book.doubt()
    survey(book, NOW, (lane, NOW - 5))

    assert not book.has_ready(NOW)
    assert [each.lane for each in book.take_unsure(10, NOW)] == [lane]


def test_claim_visits_more_lanes_while_each_holds_few_runs() -> None:
    """Many lanes of one run each do not make small claims; full lanes bring the usual number back."""
    book = book_of({LaneKey(number, NORMAL): 1 for number in range(500)})
    counts = []
    for _ in range(3):
        offers = book.offers(NOW, 500)
        counts.append(len(offers))
        book.claimed(offers, [row(offer.lane, NOW - 1) for offer in offers])
        for offer in offers:
            book.wake(offer.lane, NOW, NOW)
    for _ in range(20):
        offers = book.offers(NOW, 1000)
        book.claimed(offers, fill(offers))

    assert counts == [64, 128, 256]
    assert len(book.offers(NOW, 500)) == 64


def test_survey_goes_on_where_its_last_page_ended() -> None:
    """Pages follow each other, also when the last lane of one is not known here."""
    book = large_book()
    survey(book, NOW, (LaneKey(3, NORMAL), NOW), (LaneKey(99_999, NORMAL), NOW), is_last=False)

    assert survey(book, NOW + 7).after == LaneKey(99_999, NORMAL)
    assert book.survey(NOW) is None


def test_poll_surveys_again_from_shortly_before_the_last_one() -> None:
    """A poll of very many lanes is a survey that passes by what the one before it has seen."""
    book = large_book()
    survey(book, NOW)
    book.doubt()
    again = survey(book, NOW + LAG_US)

    assert (again.after, again.horizon_run_at) == (LaneKey(-1, -1), NOW - LAG_US)


def test_rewind_during_a_survey_begins_it_anew() -> None:
    """After `*` nothing is hidden below the horizon of a survey, although one was under way."""
    book = large_book()
    survey(book, NOW)
    book.doubt()
    asked = book.survey(NOW)
    book.rewind()
    assert asked is not None
    book.surveyed(asked, [(LaneKey(3, NORMAL), NOW + 1)], is_last=True, due_before=NOW + 2)

    assert [each.run_at for each in book.take_unsure(10, NOW)] == [0]
    assert book.survey(NOW + 5) == Page(LaneKey(-1, -1), 0, NOW + 5)


def test_few_new_queues_are_peeked_at_without_a_survey() -> None:
    """One more queue does not make a worker go through all others from their beginnings."""
    book = large_book()
    survey(book, NOW)
    book.set_queues(dict.fromkeys(range(1, PEEKED_MAX + 1), 1))

    assert {each.lane.queue_id for each in book.take_unsure(1000, NOW)} == {PEEKED_MAX}
    assert book.survey(NOW) is None


def test_drained_lane_is_peeked_at_a_little_later() -> None:
    """A wake-up that comes soon makes the peek needless; without one it is not forgotten, nor put off again."""
    first, second = LaneKey(1, NORMAL), LaneKey(2, NORMAL)
    book = book_of({first: 1})
    book.set_queues({1: 1, 2: 1})
    book.peeked(book.take_unsure(10, NOW), [], NOW)
    book.claimed(book.offers(NOW, 1), [])
    due = book.next_due()
    book.wake(second, NOW + 2_000, NOW + 2_000)
    book.claimed(book.offers(NOW + 2_000, 1), [])

    assert due is not None
    assert NOW < due <= NOW + 10_000
    assert book.next_due() == due
    assert not book.is_unsure(due - 1)
    assert book.is_unsure(due)


def test_closed_lane_is_looked_at_from_where_it_was_once_it_opens() -> None:
    """Whatever came to lie in it meanwhile is found, and the book knows when to look."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.claimed(book.offers(NOW, 10), [])
    book.peeked(book.take_unsure(10, NOW), [Due(lane, NOW + 5_000, 0.005, is_closed=True)], NOW)
    slept = book.has_ready(NOW + 4_999), book.next_due()
    is_ready = book.has_ready(NOW + 5_000)
    [offer] = book.offers(NOW + 5_000, 10)

    assert (slept, is_ready) == ((False, NOW + 5_000), True)
    assert (offer.lane, offer.horizon_run_at) == (lane, NOW - PEEK_LAG_US)


def test_lane_that_is_closed_without_an_end_is_waited_out_without_a_due_time() -> None:
    """A poll asks again, and a wake-up, which the resume sends, ends it; all is looked at then."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.claimed(book.offers(NOW, 10), [])
    book.peeked(book.take_unsure(10, NOW), [Due(lane, None, None, is_closed=True)], NOW)
    next_due = book.next_due()
    book.doubt()
    [again] = [asked for asked in book.take_unsure(10, NOW) if asked.lane == lane]
    book.wake(lane, NOW - 60_000_000, NOW)
    [offer] = book.offers(NOW, 10)

    assert next_due is None
    assert (again.run_at, offer.horizon_run_at) == (NOW - PEEK_LAG_US, NOW - 60_000_000)


def test_lane_that_is_woken_while_it_is_closed_keeps_its_horizon() -> None:
    """A claim that finds nothing, because the lane is closed, does not let go of what it was to look at."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    book.claimed(book.offers(NOW, 10), [])
    book.peeked(book.take_unsure(10, NOW), [Due(lane, None, None, is_closed=True)], NOW)
    book.wake(lane, NOW, NOW)
    book.claimed(book.offers(NOW, 10), [])
    [asked] = book.take_unsure(10, NOW)
    book.peeked([asked], [Due(lane, NOW - 1, -1.0)], NOW)
    later = NOW + 2_000_000
    is_ready = book.has_ready(later)
    [offer] = book.offers(later, 10)

    assert (asked.lane, asked.run_at) == (lane, NOW - PEEK_LAG_US)
    assert (is_ready, offer.horizon_run_at) == (True, NOW - PEEK_LAG_US)


def test_claim_that_finds_nothing_below_the_horizon_is_believed_by_a_peek() -> None:
    """A lane taken back by a wake-up is drained when both have looked there, and its horizon moves on."""
    lane = LaneKey(1, NORMAL)
    book = book_of({lane: 1})
    offers = book.offers(NOW, 10)
    book.claimed(offers, [row(lane, NOW - 1)])
    book.wake(lane, NOW - 60_000_000, NOW)
    book.claimed(book.offers(NOW, 10), [])
    [asked] = book.take_unsure(10, NOW)
    book.peeked([asked], [], NOW)
    book.wake(lane, NOW, NOW)
    [offer] = book.offers(NOW, 10)

    assert asked.run_at == NOW - 60_000_000
    assert offer.horizon_run_at == NOW - HORIZON_LAG_US


def weighted_starts(
    weights: dict[int, int], want: int, rounds: int, tenants: dict[int, int] | None = None
) -> Counter[int]:
    """How many runs each queue gets in so many claims, while all of them have work."""
    tenants = tenants or dict.fromkeys(weights, 1)
    book = book_of({LaneKey(queue, NORMAL): tenant for queue, tenant in tenants.items()})
    book.set_queues(tenants, {queue: weight for queue, weight in weights.items() if weight != 1})
    starts: Counter[int] = Counter()
    for _ in range(rounds):
        offers = book.offers(NOW, want)
        book.claimed(offers, fill(offers))
        for offer in offers:
            starts[offer.lane.queue_id] += offer.share
    return starts


@pytest.mark.parametrize("want", [1, 3, 8, 100])
def test_queues_of_a_tenant_share_by_weight(want: int) -> None:
    """However small claims are: of 8,000 runs, weights 5, 2 and 1 get 5,000, 2,000 and 1,000."""
    starts = weighted_starts({1: 5, 2: 2, 3: 1}, want, 8_000 // want)

    assert starts[1] == pytest.approx(5_000, abs=want + 1)
    assert starts[2] == pytest.approx(2_000, abs=want + 1)
    assert starts[3] == pytest.approx(1_000, abs=want + 1)


@pytest.mark.parametrize("want", [1, 2, 10])
def test_weights_do_not_move_shares_from_tenant_to_tenant(want: int) -> None:
    """A tenant's queue of weight 1,000 gets no more than another tenant's of weight 1."""
    starts = weighted_starts({1: 1_000, 2: 1}, want, 1_000, {1: 1, 2: 2})

    assert abs(starts[1] - starts[2]) <= 1


def test_queue_without_weight_is_not_starved_by_heavy_ones() -> None:
    """The lightest gets its share, one of 1,001, too."""
    starts = weighted_starts({1: 1_000, 2: 1}, 10, 1_001)

    assert starts[2] == 10


def test_more_weighted_queues_than_a_claim_visits_all_get_runs() -> None:
    """The rotation goes on among those that got a share."""
    starts = weighted_starts({queue: 1 + queue % 3 for queue in range(1, 200)}, 50, 400)

    assert min(starts[queue] for queue in range(1, 200)) > 0


def test_new_weights_count_from_the_next_claim_on() -> None:
    """A book that already knows its queues takes other weights over."""
    lanes = {LaneKey(1, NORMAL): 1, LaneKey(2, NORMAL): 1}
    book = book_of(lanes)
    book.set_queues({1: 1, 2: 1}, {1: 9})
    book.offers(NOW, 10)
    book.set_queues({1: 1, 2: 1}, {2: 9})

    offers = book.offers(NOW, 10)

    assert {offer.lane.queue_id: offer.share for offer in offers} == {1: 1, 2: 9}


def test_tenants_that_have_nothing_here_are_told_apart() -> None:
    """Those with ready lanes that are not known, while others are; not when nobody is known, nor a crowd."""
    book = book_of({LaneKey(queue, NORMAL): queue for queue in range(1, 6)})

    assert book.ready_tenants(8, lambda tenant: tenant < 4) == [4, 5]
    assert book.ready_tenants(1, lambda tenant: tenant < 4) == []
    assert book.ready_tenants(8, lambda _: False) == []
    assert book.ready_tenants(8, lambda _: True) == []


def test_claim_for_some_tenants_visits_only_their_lanes() -> None:
    """The others keep their turn."""
    book = book_of({LaneKey(queue, NORMAL): queue for queue in range(1, 4)})

    offers = book.offers(NOW, 10, [2])

    assert [(offer.lane.queue_id, offer.share) for offer in offers] == [(2, 10)]
    assert [offer.lane.queue_id for offer in book.offers(NOW, 3)] == [1, 3, 2]
