"""The entries of `HOWDAH_QUEUES`: queue names and patterns, some with a weight (`critical.*=5,emails=2,*`). Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHT_MAX: Final = 1_000
_ENTRY: Final = re.compile(r"([a-z0-9*?][a-z0-9_.*?-]{0,127})(?: *= *(.*))?")


class QueuePattern(NamedTuple):
    """Queues that a worker serves.

    Attributes:
        pattern: A name, in which `*` stands for any text and `?` for any character.
        weight: Share of each such queue among those of its tenant, 1 to `WEIGHT_MAX`.
    """

    pattern: str
    weight: int

    @classmethod
    def read(cls, text: str) -> QueuePattern:
        """Read an entry.

        Raises:
            ValueError: It is none; the message says what does not fit.
        """
        match = _ENTRY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:100]!r} does not fit")
        text = "1" if match[2] is None else match[2]
        # int() alone would take underscores, signs and the digits of other scripts.
        if re.fullmatch(r"[0-9]{1,9}", text) is None or not 1 <= int(text) <= WEIGHT_MAX:
            raise ValueError(f"the weight of {match[1]!r} must be a whole number from 1 to {WEIGHT_MAX}")
        return cls(match[1], int(text))


class QueueChoice:
    """The queues that a worker serves, and their weights: of entries that match a name, the first counts."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Read entries.

        Raises:
            ValueError: One is none, or a pattern stands there twice with different weights.
        """
        weights: dict[str, int] = {}
        for pattern, weight in map(QueuePattern.read, entries):
            if weights.setdefault(pattern, weight) != weight:
                raise ValueError(f"{pattern!r} has two weights, {weights[pattern]} and {weight}")
        self._weights = weights

    @property
    def patterns(self) -> list[str]:
        """The patterns without their weights, as other processes and SQL see them."""
        return list(self._weights)

    def weight(self, name: str) -> int | None:
        """Return the weight of a queue; None if it is not served."""
        return next((weight for pattern, weight in self._weights.items() if fnmatchcase(name, pattern)), None)
