"""What handlers may decide about their tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from howdah.core.decisions import RETRY_S_MAX, SNOOZE_S_MAX, RetryAfter, Snooze


@pytest.mark.parametrize("delay", [90, 90.0, "90s", "1.5m", "PT1M30S", timedelta(seconds=90)])
def test_delay_is_a_number_a_text_or_a_timedelta(delay: Any) -> None:
    """All ways to write a duration mean the same."""
    assert RetryAfter(delay).delay_s == Snooze(delay).delay_s == 90


@pytest.mark.parametrize("kind", [RetryAfter, Snooze])
@pytest.mark.parametrize(
    "delay", [-1, -0.001, float("nan"), float("inf"), "soon", "", "-5s", timedelta(days=-1), 1e300, timedelta.max]
)
def test_delay_that_is_none_is_refused(kind: type[RetryAfter] | type[Snooze], delay: Any) -> None:
    """A delay that cannot be meant is an error of the handler, where its traceback shows it."""
    with pytest.raises(ValueError, match=r"delay|duration"):
        kind(delay)


def test_longest_delays() -> None:
    """A retry is at most a day away, a snooze a year, as the first start of a task is."""
    assert RetryAfter(RETRY_S_MAX).delay_s == 86_400
    assert Snooze(SNOOZE_S_MAX).delay_s == 366 * 86_400
    with pytest.raises(ValueError, match="86400"):
        RetryAfter(RETRY_S_MAX + 1)


def test_reason_is_what_it_says() -> None:
    """The reason is the exception's text too."""
    assert str(Snooze(1, "not yet")) == Snooze(1, "not yet").reason == "not yet"
