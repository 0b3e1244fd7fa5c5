"""Where the runs of a worker are performed. What is performed in one place is claimed together."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from howdah.handlers import Handler


class Place(Enum):
    """A place, of which each has slots of its own."""

    LOOP = "loop"
    """The event loop: async handlers and callbacks."""
    THREADS = "threads"
    """Threads: plain functions."""
    PROCESSES = "processes"
    """Child processes: isolated handlers."""


LOOP: Final = Place.LOOP
THREADS: Final = Place.THREADS
PROCESSES: Final = Place.PROCESSES


def place_of(handler: Handler) -> Place:
    """Return where a handler is performed."""
    if handler.is_isolated:
        return PROCESSES
    return LOOP if handler.is_async else THREADS
