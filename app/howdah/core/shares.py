"""Splitting the runs of a claim: evenly, or by weight. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class Weighted(Protocol):
    """What gets a share by its weight.

    Attributes:
        weight: Relative to that of the others.
        credit: What rounding has kept from it so far, or given it too much.
    """

    credit: float

    @property
    def weight(self) -> int:
        """Relative to that of the others."""


W = TypeVar("W", bound=Weighted)


class Turn:
    """The place of something in the turns of its like: its weight, and its credit."""

    __slots__ = ("credit", "weight")

    def __init__(self, weight: int) -> None:
        """Begin without credit."""
        self.weight = weight
        self.credit = 0.0


def split(total: int, parts: int) -> list[int]:
    """Split evenly; the first ones get what is left over."""
    base, extra = divmod(total, parts) if parts else (0, 0)
    return [base + (place < extra) for place in range(parts)]


def weigh(parts: Sequence[W], total: int) -> list[int]:
    """Split by weight; what rounding takes is kept as credit, so that it comes out even over many claims."""
    if len(parts) == 1:
        return [total]
    weight = sum(each.weight for each in parts)
    given: list[int] = []
    left = total
    for each in parts:
        each.credit += total * each.weight / weight
        count = min(max(int(each.credit), 0), left)
        each.credit -= count
        left -= count
        given.append(count)
    while left:
        place = max(range(len(parts)), key=lambda at: parts[at].credit)
        parts[place].credit -= 1
        given[place] += 1
        left -= 1
    return given
