"""Durations as text: what clients, settings and policies write for a length of time.

Two spellings are understood. Short: one or more numbers with a unit, largest
unit first, each at most once (`250ms`, `30s`, `5m`, `1h30m`, `7d`). ISO 8601:
`PT5M`, `P1DT12H`, `P2W`. A fraction is allowed in the last number only.
Years and months are refused, for their length depends on the calendar.
"""

from __future__ import annotations

import re
from typing import Final

from howdah.core.errors import DurationInvalid

# One century; a longer duration is a mistake of its writer.
DURATION_S_MAX: Final = 36_525 * 86_400.0
_LENGTH_MAX: Final = 64

_NUMBER: Final = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"
_SHORT: Final = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in ("w", "d", "h", "m(?!s)", "s", "ms")))
_ISO: Final = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?"
)
_UNITS_S: Final = (604_800.0, 86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def parse_duration(text: str) -> float:
    """Read a duration such as `30s`, `1h30m` or `PT5M`.

    Returns:
        Seconds, finite, 0 to `DURATION_S_MAX`.

    Raises:
        DurationInvalid: The text is no duration; the message says what is allowed.
    """
    if len(text) <= _LENGTH_MAX:
        match = _SHORT.fullmatch(text) or _ISO.fullmatch(text)
        if match is not None:
            seconds = _sum(match.groups())
            if seconds is not None:
                return seconds
    shown = text if len(text) <= _LENGTH_MAX else f"{text[:_LENGTH_MAX]}…"
    raise DurationInvalid(f"{shown!r} is not a duration; write for example 30s, 5m, 1h30m, 7d or PT5M, at most 36525d")


def format_duration(seconds: float) -> str:
    """Write a duration in the short spelling, to the microsecond.

    Args:
        seconds: 0 to `DURATION_S_MAX`.

    Returns:
        A text from which `parse_duration` reads the same microseconds, without
        parts that are zero: `0s`, `250ms`, `1h30m`, `1d0.5s`.

    Raises:
        DurationInvalid: `seconds` is negative, not finite, or too large.
    """
    if not 0 <= seconds <= DURATION_S_MAX:
        raise DurationInvalid(f"{seconds!r} seconds cannot be written as a duration")
    left = round(seconds * 1_000_000)
    if 0 < left < 1_000_000:
        return f"{_decimal(left, 1_000)}ms"
    parts: list[str] = []
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    if left or not parts:
        parts.append(f"{_decimal(left, 1_000_000)}s")
    return "".join(parts)


def _sum(numbers: tuple[str | None, ...]) -> float | None:
    """Add the parts up; None if there are none, too much, or a fraction before the last."""
    given = [(number, unit_s) for number, unit_s in zip(numbers, _UNITS_S, strict=False) if number is not None]
    if not given or any("." in number for number, _ in given[:-1]):
        return None
    seconds = sum(float(number) * unit_s for number, unit_s in given)
    return seconds if seconds <= DURATION_S_MAX else None


def _decimal(micros: int, size: int) -> str:
    """Write `micros / size` exactly, without trailing zeros."""
    whole, rest = divmod(micros, size)
    if not rest:
        return str(whole)
    digits = len(str(size)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
