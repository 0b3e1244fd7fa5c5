"""Readers of single settings: text in, a checked value out.

Each function returns a `Reader`, which knows what it allows in words. `read`
raises ValueError; its message adds what the words do not say, or is empty.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from howdah.core.errors import DurationInvalid
from howdah.core.queue_pattern import WEIGHT_MAX, QueueChoice
from howdah.core.units import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of setting is read.

    Attributes:
        read: Turns text into the value, or raises ValueError.
        allowed: Completes the sentence "must be …".
    """

    read: Callable[[str], Any]
    allowed: str


def integer(low: int, high: int) -> Reader:
    """Read a whole number from `low` to `high`."""

    def read(text: str) -> int:
        # int() alone would take underscores, signs and the digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise ValueError
        return _between(int(text), low, high)

    return Reader(read, f"a whole number from {low} to {high}")


def size(low: int, high: int) -> Reader:
    """Read a number of bytes, plain or with one of the units KiB and MiB."""

    def read(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15}) ?(KiB|MiB)?", text)
        if match is None:
            raise ValueError
        return _between(int(match[1]) * {None: 1, "KiB": 1_024, "MiB": 1_048_576}[match[2]], low, high)

    return Reader(read, f"a number of bytes from {low} to {high}, also written like 256KiB or 8MiB")


def seconds(low: float, high: float) -> Reader:
    """Read a duration, as a plain number of seconds or with units (`15`, `0.5`, `30s`, `30d`)."""

    def read(text: str) -> float:
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
            return _between(float(text), low, high)
        try:
            return _between(parse_duration(text), low, high)
        except DurationInvalid:
            raise ValueError from None

    span = f"{format_duration(low)} to {format_duration(high)}"
    return Reader(read, f"a duration from {span}, in seconds or like 30s, 5m, 7d")


def boolean() -> Reader:
    """Read a yes or no."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

    def read(text: str) -> bool:
        try:
            return words[text.lower()]
        except KeyError:
            raise ValueError from None

    return Reader(read, "1, true, yes, on or 0, false, no, off")


def choice(*words: str) -> Reader:
    """Read one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Reader(read, "one of " + ", ".join(words))


def text(length_max: int) -> Reader:
    """Read a text that is printable and not too long, for example a host name or a path."""

    def read(given: str) -> str:
        if len(given) > length_max or not given.isprintable():
            raise ValueError
        return given

    return Reader(read, f"printable text of at most {length_max} characters")


def pattern(regex: str, allowed: str) -> Reader:
    """Read a text that matches a regular expression as a whole."""

    def read(given: str) -> str:
        if re.fullmatch(regex, given) is None:
            raise ValueError
        return given

    return Reader(read, allowed)


def postgres_url() -> Reader:
    """Read the URL of a PostgreSQL database; libpq checks the rest of it on connecting."""

    def read(given: str) -> str:
        if not given.startswith(("postgresql://", "postgres://")) or not given.isprintable():
            raise ValueError
        return given

    return Reader(read, "a URL that begins with postgresql:// or postgres://")


def base_url() -> Reader:
    """Read the beginning of URLs, to which paths are appended; a slash at its end is left out."""

    def read(given: str) -> str:
        if len(given) > 1_024 or not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._~/-]*)?", given):
            raise ValueError
        return given.rstrip("/")

    return Reader(read, "an http or https URL without user, query and fragment, like https://jobs.example.com")


def queue_patterns() -> Reader:
    """Read a comma-separated list of queue names and patterns with `*` and `?`, each with a weight if need be."""

    def read(given: str) -> tuple[str, ...]:
        items = _items(given)
        QueueChoice(items)
        return items

    allowed = f"a comma-separated list of queue names or patterns with * and ? and weights (=1 to ={WEIGHT_MAX})"
    return Reader(read, allowed)


def modules() -> Reader:
    """Read a comma-separated list of Python modules."""
    return _list_of(
        lambda item: all(part.isidentifier() for part in item.split(".")),
        "a comma-separated list of importable module names like shop.jobs",
    )


def networks() -> Reader:
    """Read a comma-separated list of IP networks."""

    def read(given: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        # ipaddress names the item and what is wrong with it, for example "has host bits set".
        return tuple(ipaddress.ip_network(item) for item in _items(given))

    return Reader(read, "a comma-separated list of networks like 10.0.0.0/8 or ::1/128")


def _list_of(fits: Callable[[str], bool], allowed: str) -> Reader:
    def read(given: str) -> tuple[str, ...]:
        items = _items(given)
        for item in items:
            if not fits(item):
                raise ValueError(f"{item[:100]!r} does not fit")
        return items

    return Reader(read, allowed)


def _items(given: str) -> tuple[str, ...]:
    """Split at commas, drop empty items and repeats, keep the order."""
    return tuple(dict.fromkeys(item for item in (part.strip() for part in given.split(",")) if item))


def _between(value: Number, low: float, high: float) -> Number:
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError
    return value
