"""Durations as text: what clients, settings and policies write for a length of time.

Two spellings are understood, the same as by the SQL function `howdah.duration_s`.
Short: one number with a unit (`250ms`, `30s`, `1.5h`, `7d`). ISO 8601: `PT5M`,
`P1DT12H`, `P2W`, with a fraction in the seconds only. Years and months are
refused, for their length depends on the calendar.
"""

from __future__ import annotations

import math
import re
from typing import Final

from howdah.core.errors import DurationInvalid

_LENGTH_MAX: Final = 32

_SHORT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SHORT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_ISO: Final = re.compile(
    r"P(?=[0-9T])(?:([0-9]+)W)?(?:([0-9]+)D)?"
    r"(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:\.[0-9]+)?)S)?)?"
)
_ISO_S: Final = (604_800.0, 86_400.0, 3_600.0, 60.0, 1.0)


def parse_duration(text: str) -> float:
    """Read a duration such as `30s`, `1.5h` or `PT5M`.

    Returns:
        Seconds, finite, not negative, otherwise of any size: callers check their range.

    Raises:
        DurationInvalid: The text is no duration; the message shows what is allowed.
    """
    if len(text) <= _LENGTH_MAX:
        if (short := _SHORT.fullmatch(text)) is not None:
            return float(short[1]) * _SHORT_S[short[2]]
        if (iso := _ISO.fullmatch(text)) is not None:
            return sum(float(number) * unit_s for number, unit_s in zip(iso.groups("0"), _ISO_S, strict=True))
    shown = text if len(text) <= _LENGTH_MAX else f"{text[:_LENGTH_MAX]}…"
    raise DurationInvalid(f"{shown!r} is not a duration; write for example 250ms, 30s, 5m, 1.5h, 7d or PT5M")


def format_duration(seconds: float) -> str:
    """Write a duration in the short spelling, to the microsecond.

    Args:
        seconds: Not negative.

    Returns:
        A text from which `parse_duration` reads the same microseconds, in the largest unit that
        needs no fraction: `0s`, `250ms`, `90s`, `5m`, `30d`.

    Raises:
        DurationInvalid: `seconds` is negative or not finite.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DurationInvalid(f"{seconds!r} seconds cannot be written as a duration")
    micros = round(seconds * 1_000_000)
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(micros, round(_SHORT_S[unit] * 1_000_000))
        if micros and not rest:
            return f"{count}{unit}"
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}".rstrip("0").rstrip(".") + "s"
