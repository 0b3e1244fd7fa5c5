"""Wake-up messages, written and read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.wake import (
    MESSAGE_BYTES_MAX,
    AllLanes,
    BeatNow,
    CatalogueChanged,
    LaneReady,
    SchemaChanged,
    SelfCheck,
    Word,
    parse_message,
    write_messages,
)

RUN_AT = datetime(2026, 11, 24, 16, 0, 0, 123_456, tzinfo=UTC)

ids = st.integers(0, 2**31 - 1)
words: st.SearchStrategy[Word] = st.one_of(
    st.builds(
        LaneReady,
        ids,
        st.integers(0, 4),
        st.integers(0, 10**17 - 1),
    ),
    st.just(AllLanes()),
    st.builds(BeatNow, ids),
    st.just(CatalogueChanged()),
    st.just(SchemaChanged()),
    st.builds(SelfCheck, st.text("0123456789abcdef", min_size=1, max_size=32)),
)


def test_lane_word_carries_microseconds_since_1970() -> None:
    """A lane is written as howdah.lane_word writes it."""
    assert str(LaneReady.at(7, 1, RUN_AT)) == "q7.1.1795536000123456"


@given(words)
def test_word_reads_back_as_it_was_written(word: Word) -> None:
    """Nothing of a word is lost on the way, not even a microsecond."""
    assert parse_message(str(word)) == [word]


def test_parse_keeps_the_words_that_it_knows() -> None:
    """One strange word does not cost the others."""
    assert parse_message("q7.1.0 zebra * b12") == [
        LaneReady(7, 1, 0),
        AllLanes(),
        BeatNow(12),
    ]


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        " ",
        "q",
        "q7",
        "q7.1",
        "q7.1.",
        "q7.5.1",
        "q-1.1.1",
        "q7.1.1.1",
        "q7.1.1e6",
        "q2147483648.1.1",
        "q7.1.999999999999999999",
        "q\u0667.1.1",
        "q7.1.1\n",
        "b",
        "b-1",
        "b1_000",
        "b99999999999999999999",
        "p",
        "pXYZ",
        "c7",
        "**",
        "C",
        "\x00",
        "q7.1.1\tb1",
    ],
)
def test_parse_passes_over_garbage(garbage: str) -> None:
    """Anybody may notify the channel; what is no word says nothing."""
    assert parse_message(garbage) == []


@given(st.text(max_size=200))
def test_parse_never_raises(payload: str) -> None:
    """No message can stop a listener."""
    for word in parse_message(payload):
        assert parse_message(str(word)) == [word]


def test_write_keeps_the_earliest_of_a_lane() -> None:
    """A lane is named once, with the oldest run that is news."""
    messages = write_messages([LaneReady(7, 1, 2_000), LaneReady(7, 2, 2_000), LaneReady(7, 1, 1_000)])

    assert [parse_message(message) for message in messages] == [[LaneReady(7, 1, 1_000), LaneReady(7, 2, 2_000)]]


def test_write_says_all_lanes_when_they_do_not_fit() -> None:
    """Too many lanes for one message become a star; what concerns single workers is still said."""
    lanes = [LaneReady(number, 1, 1_000) for number in range(1_000)]

    assert write_messages([*lanes, BeatNow(12), CatalogueChanged()]) == ["* b12 c"]


def test_write_names_no_lane_beside_all_lanes() -> None:
    """A star says it all."""
    assert write_messages([LaneReady(7, 1, 1_000), AllLanes(), BeatNow(3)]) == ["* b3"]


def test_write_of_nothing_is_no_message() -> None:
    """Nothing to say is not sent."""
    assert write_messages([]) == []


@given(st.lists(words, max_size=2_000))
def test_write_loses_no_word_and_fits(said: list[Word]) -> None:
    """Every message is short enough for PostgreSQL, and who reads them all knows of everything."""
    messages = write_messages(said)
    heard = {word for message in messages for word in parse_message(message)}

    assert all(len(message.encode()) <= MESSAGE_BYTES_MAX for message in messages)
    assert {word for word in said if not isinstance(word, LaneReady)} - {AllLanes()} <= heard
    if AllLanes() not in heard:
        lanes = {word[:2]: word.run_at_us for word in heard if isinstance(word, LaneReady)}
        assert all(lanes[word[:2]] <= word.run_at_us for word in said if isinstance(word, LaneReady))


def test_write_splits_what_is_too_long_for_one_message() -> None:
    """A thousand cancels at once need more than one message."""
    beats = [BeatNow(2_000_000_000 + number) for number in range(1_000)]
    messages = write_messages(beats)

    assert len(messages) > 1
    assert [word for message in messages for word in parse_message(message)] == beats
