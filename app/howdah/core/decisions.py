"""What a handler may decide about its task, besides succeeding and failing.

Each is an exception, so that it ends a handler from any depth: raise it, or
return it.

    raise howdah.RetryAfter("10m", "the supplier is closed")
    raise howdah.GiveUp("no such customer")
    return howdah.Snooze(30)
    return howdah.Cancel("the order was withdrawn")
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final, TypeAlias

from howdah.core.units import parse_duration

RETRY_S_MAX: Final = 86_400.0
SNOOZE_S_MAX: Final = 366 * 86_400.0

Delay: TypeAlias = float | timedelta | str
"""Seconds, a timedelta, or a text such as "30s" or "PT5M"."""


class Decision(Exception):
    """The root of these.

    Attributes:
        reason: For people; recorded with the run. May be empty.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class _Later(Decision):
    """A decision that names a delay.

    Attributes:
        delay_s: Seconds, 0 to `_SECONDS_MAX`.
    """

    _SECONDS_MAX: ClassVar[float]

    def __init__(self, delay: Delay, reason: str = "") -> None:
        """Take the delay.

        Raises:
            ValueError: It is none, or not within its bounds.
        """
        super().__init__(reason)
        self.delay_s = _seconds(delay, self._SECONDS_MAX)


class RetryAfter(_Later):
    """This attempt failed; the next one comes after a delay of the handler's own choice, 0 to 24 h.

    The attempt is spent, and the task given up when attempts or age are. The delay
    counts as it is: the policy's `max` and `errors` are not asked.
    """

    _SECONDS_MAX = RETRY_S_MAX


class Snooze(_Later):
    """Not now: the task comes again after a delay of 0 to 366 days, and no attempt is spent.

    It is given up if it would come later than the policy's `max_age` allows.
    """

    _SECONDS_MAX = SNOOZE_S_MAX


class GiveUp(Decision):
    """No further attempt can help: the task becomes a dead letter now."""


class Cancel(Decision):
    """The task has become pointless: it ends as cancelled, and is no dead letter."""


def _seconds(delay: Delay, seconds_max: float) -> float:
    if isinstance(delay, timedelta):
        seconds = delay.total_seconds()
    else:
        seconds = parse_duration(delay) if isinstance(delay, str) else float(delay)
    # Also refuses what is no number.
    if not 0 <= seconds <= seconds_max:
        raise ValueError(f"a delay must be from 0 to {seconds_max:g} seconds, not {seconds:g}")
    return seconds
