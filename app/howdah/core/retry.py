"""When a failed task is tried again.

`RetryPolicy` is what clients write as `retry` on a task or queue. `delay_s` is
the reference for the delay: the SQL function that computes it in the database
must give the same numbers, and shared vectors test both.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from howdah.core.errors import DurationInvalid, Refused
from howdah.core.units import format_duration, parse_duration

MAX_ATTEMPTS_MAX: Final = 1_000
DELAY_S_MAX: Final = 86_400.0
MAX_AGE_S_MIN: Final = 1.0
MAX_AGE_S_MAX: Final = 366 * 86_400.0
FACTOR_MAX: Final = 100.0
DELAY_LIST_MAX: Final = 100
KIND_LIST_MAX: Final = 100
ERROR_CHARS_MAX: Final = 200

Backoff = Literal["exponential", "linear", "fixed", "list"]


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how soon a task is tried again; ends when either limit is spent.

    Durations are texts like "30s". The delay after attempt n is, before jitter:
    `exponential` initial x factor^(n-1), `linear` initial x n, `fixed` initial,
    `list` the n-th of `list` (after them the last); never more than `max`.

    Attributes:
        max_attempts: Attempts in all, the first included.
        max_age: No attempt starts later than this after the task was due.
        backoff: How delays grow.
        initial: The first delay.
        max: The longest delay before jitter.
        factor: By how much `exponential` grows.
        jitter: Spreads delays evenly by up to this share either way.
        delays: The field `list`: the delays of that backoff, given with it only.
        statuses: Answers of a callback with another attempt; all others are final. Not given:
            408, 409, 423, 425, 429 and 5xx.
        errors: Types of errors without an answer that have another attempt: names of exceptions, `timed_out`,
            or of callbacks `timeout`, `connect_failed`, …; all others are final. Not given: all.
    """

    max_attempts: int = 4
    max_age: str = "24h"
    backoff: Backoff = "exponential"
    initial: str = "1s"
    max: str = "300s"
    factor: float = 2.0
    jitter: float = 0.2
    delays: list[str] = msgspec.field(name="list", default_factory=list)
    statuses: list[int] | None = None
    errors: list[str] | None = None


DEFAULT: Final = RetryPolicy()


def check(policy: RetryPolicy, pointer: str) -> list[Refused]:
    """Find everything that is not allowed in a policy whose types are right.

    Args:
        policy: As decoded.
        pointer: JSON pointer of the policy itself, for example `/retry`.

    Returns:
        One refusal for each field at fault, none if all is well.
    """
    found: list[Refused] = []

    def refuse(field: str, detail: str) -> None:
        found.append(Refused("validation", f"{pointer}/{field}", detail))

    def refuse_length(field: str, length: int) -> None:
        if not 1 <= length <= KIND_LIST_MAX:
            refuse(field, f"must have 1 to {KIND_LIST_MAX} items")

    if not 1 <= policy.max_attempts <= MAX_ATTEMPTS_MAX:
        refuse("max_attempts", f"must be from 1 to {MAX_ATTEMPTS_MAX}")
    if not 1 <= policy.factor <= FACTOR_MAX:
        refuse("factor", f"must be from 1 to {FACTOR_MAX:g}")
    if not 0 <= policy.jitter <= 1:
        refuse("jitter", "must be from 0 to 1")
    durations = [("max_age", policy.max_age, MAX_AGE_S_MIN, MAX_AGE_S_MAX)]
    durations += [(name, getattr(policy, name), 0.0, DELAY_S_MAX) for name in ("initial", "max")]
    durations += [(f"list/{index}", text, 0.0, DELAY_S_MAX) for index, text in enumerate(policy.delays)]
    for field, text, low_s, high_s in durations:
        try:
            if not low_s <= parse_duration(text) <= high_s:
                refuse(field, f"must be from {format_duration(low_s)} to {format_duration(high_s)}")
        except DurationInvalid as error:
            refuse(field, str(error))
    if (policy.backoff == "list") != bool(policy.delays):
        refuse("list", "must be given exactly when the backoff is `list`")
    elif len(policy.delays) > DELAY_LIST_MAX:
        refuse("list", f"must have at most {DELAY_LIST_MAX} items")
    if policy.statuses is not None:
        refuse_length("statuses", len(policy.statuses))
        for index, status in enumerate(policy.statuses):
            if not 100 <= status <= 599:
                refuse(f"statuses/{index}", "must be from 100 to 599")
    if policy.errors is not None:
        refuse_length("errors", len(policy.errors))
        for index, name in enumerate(policy.errors):
            if not 1 <= len(name) <= ERROR_CHARS_MAX:
                refuse(f"errors/{index}", f"must have 1 to {ERROR_CHARS_MAX} characters")
    return found


def delay_s(policy: RetryPolicy, attempt: int, unit_random: float) -> float:
    """Compute the delay between a failed attempt and the next.

    Args:
        policy: One that `check` found nothing wrong with.
        attempt: Attempts spent so far, 1 after the first.
        unit_random: Evenly random in 0 to 1; 0.5 gives the delay without jitter.

    Returns:
        Seconds, finite, 0 to `DELAY_S_MAX`, whatever the numbers of the policy are.
    """
    cap_s = parse_duration(policy.max)
    initial_s = parse_duration(policy.initial)
    match policy.backoff:
        case "exponential":
            base_s = _grown(initial_s, policy.factor, attempt - 1)
        case "linear":
            base_s = initial_s * attempt
        case "fixed":
            base_s = initial_s
        case "list":
            base_s = parse_duration(policy.delays[min(attempt, len(policy.delays)) - 1])
    spread_s = min(base_s, cap_s) * (1 + policy.jitter * (2 * unit_random - 1))
    return min(max(spread_s, 0.0), DELAY_S_MAX)


def _grown(initial_s: float, factor: float, exponent: int) -> float:
    """Return initial_s * factor^exponent, or infinity where a float cannot hold it."""
    if initial_s == 0:
        return 0.0
    try:
        return initial_s * factor**exponent
    except OverflowError:
        return math.inf
