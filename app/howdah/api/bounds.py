"""What numbers and durations of a body may be; refused where they stand."""

from __future__ import annotations

from howdah.api.problems import invalid
from howdah.core.errors import DurationInvalid
from howdah.core.units import parse_duration


def seconds_of(text: str, pointer: str, s_min: float, s_max: float, allowed: str | None = None) -> float:
    """Return a duration in seconds.

    Args:
        text: As the client wrote it.
        pointer: Where it stands in the body.
        s_min: Shortest.
        s_max: Longest.
        allowed: These two in words, "from 1 second to 24 hours"; in seconds if not given.

    Raises:
        Problem: It is no duration, or out of bounds.
    """
    try:
        seconds = parse_duration(text)
    except DurationInvalid as error:
        raise invalid(pointer, str(error)) from None
    if not s_min <= seconds <= s_max:
        raise invalid(pointer, f"must be a duration {allowed or f'from {s_min:g} to {s_max:g} seconds'}")
    return seconds


def check_count(number: int, pointer: str, most: int) -> None:
    """Refuse a whole number that is not from 1 to `most`.

    Raises:
        Problem: It is not.
    """
    if not 1 <= number <= most:
        raise invalid(pointer, f"must be a whole number from 1 to {most}")
