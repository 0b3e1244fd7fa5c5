"""Entries of HOWDAH_QUEUES: which queues, with which weight."""

from __future__ import annotations

import pytest

from howdah.core.queue_pattern import QueueChoice, QueuePattern


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("emails", ("emails", 1)),
        ("critical.*=5", ("critical.*", 5)),
        ("emails = 2", ("emails", 2)),
        ("*=1000", ("*", 1000)),
        ("a=007", ("a", 7)),
    ],
)
def test_entry_is_a_pattern_and_a_weight(entry: str, expected: tuple[str, int]) -> None:
    """The weight is 1 where there is none."""
    assert QueuePattern.read(entry) == expected


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("a=0", "the weight of 'a' must be a whole number from 1 to 1000"),
        ("a=nan", "the weight of 'a' must be a whole number from 1 to 1000"),
        ("a=1e9", "the weight of 'a' must be a whole number from 1 to 1000"),
        ("A=1", "'A=1' does not fit"),
    ],
)
def test_wrong_entry_is_named(entry: str, says: str) -> None:
    """What is wrong, and what would be right."""
    with pytest.raises(ValueError, match="^" + says + "$"):
        QueuePattern.read(entry)


def test_pattern_with_two_weights_is_refused() -> None:
    """Nobody could say which was meant; the same twice is one."""
    with pytest.raises(ValueError, match=r"^'a' has two weights, 2 and 3$"):
        QueueChoice(["a=2", "b", "a=3"])

    assert QueueChoice(["a=2", "a=2"]).patterns == ["a"]


def test_first_entry_that_matches_counts() -> None:
    """In the order in which they stand, not the most specific."""
    choice = QueueChoice(["emails.urgent=9", "emails.*=2", "*", "sms=7"])

    weights = {name: choice.weight(name) for name in ("emails.urgent", "emails.daily", "sms", "other")}

    assert weights == {"emails.urgent": 9, "emails.daily": 2, "sms": 1, "other": 1}
    assert choice.patterns == ["emails.urgent", "emails.*", "*", "sms"]


def test_queue_that_no_entry_matches_is_not_served() -> None:
    """It has no weight."""
    assert QueueChoice(["emails=2"]).weight("sms") is None
