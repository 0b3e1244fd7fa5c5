"""Wake-ups: what the notification channel says, and how it is written.

A message is a few words with a space between:

    q7.1.1764000000000000   lane (queue 7, priority 1) has a run due at that
                            microsecond since 1970
    *                       any lane may have work
    b12                     worker 12 shall heartbeat now: a cancel waits for it
    c                       queues or targets were made: read the catalogue again
    m                       the schema was migrated: check that it still fits
    p3f2a…                  a listener's check that notifications reach it

`howdah.lane_word` writes the first in SQL. Nothing depends on a wake-up: what
is lost, or not understood, costs the latency of a poll. So a reader passes over
words that it does not know, which a later release or a stranger may have sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

# PostgreSQL refuses payloads of 8,000 bytes and more.
MESSAGE_BYTES_MAX: Final = 7_900

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INTEGER_MAX: Final = 2**31 - 1

_LANE: Final = re.compile(r"q([0-9]{1,10})\.([0-4])\.([0-9]{1,17})", re.ASCII)
_BEAT: Final = re.compile(r"b([0-9]{1,10})", re.ASCII)
_CHECK: Final = re.compile(r"p([0-9a-f]{1,64})", re.ASCII)


class LaneReady(NamedTuple):
    """A lane has a run that is due at `run_at_us`, and no older one that is news.

    What a sleeping worker is woken by, so reading one is brief: 0.05 ms less for the task that waits.
    """

    queue_id: int
    priority: int
    run_at_us: int
    """Microseconds since 1970."""

    @classmethod
    def at(cls, queue_id: int, priority: int, run_at: datetime) -> LaneReady:
        """Make the word from a time with its zone."""
        return cls(queue_id, priority, (run_at - _EPOCH) // _MICROSECOND)

    def __str__(self) -> str:
        """Write the word."""
        return f"q{self.queue_id}.{self.priority}.{self.run_at_us}"


@dataclass(frozen=True, slots=True)
class AllLanes:
    """Any lane may have work: look at all of them, without horizons."""

    def __str__(self) -> str:
        """Write the word."""
        return "*"


@dataclass(frozen=True, slots=True)
class BeatNow:
    """The worker shall send its heartbeat at once."""

    worker_id: int

    def __str__(self) -> str:
        """Write the word."""
        return f"b{self.worker_id}"


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    """Queues or targets were made or changed."""

    def __str__(self) -> str:
        """Write the word."""
        return "c"


@dataclass(frozen=True, slots=True)
class SchemaChanged:
    """The schema was migrated."""

    def __str__(self) -> str:
        """Write the word."""
        return "m"


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """A listener's own notification; `nonce` is lower-case hexadecimal."""

    nonce: str

    def __str__(self) -> str:
        """Write the word."""
        return f"p{self.nonce}"


Word: TypeAlias = LaneReady | AllLanes | BeatNow | CatalogueChanged | SchemaChanged | SelfCheck

_PLAIN: Final[dict[str, Word]] = {str(word): word for word in (AllLanes(), CatalogueChanged(), SchemaChanged())}


def parse_message(payload: str) -> list[Word]:
    """Return the words of a message that are understood, in order; never raises."""
    return [word for text in payload.split(" ") if (word := _parse(text)) is not None]


def write_messages(words: Iterable[Word]) -> list[str]:
    """Write words as few messages, each of at most `MESSAGE_BYTES_MAX` bytes.

    Of several words for one lane the earliest counts. Lanes that do not fit in
    one message become one `*`.
    """
    lanes: dict[tuple[int, int], LaneReady] = {}
    others: dict[Word, None] = {}
    for word in words:
        if not isinstance(word, LaneReady):
            others[word] = None
        elif word.run_at_us < lanes.setdefault((word.queue_id, word.priority), word).run_at_us:
            lanes[word.queue_id, word.priority] = word
    if AllLanes() in others:
        return _packed(str(word) for word in others)
    texts = [str(word) for word in lanes.values()]
    if sum(len(text) + 1 for text in texts) > MESSAGE_BYTES_MAX:
        texts = [str(AllLanes())]
    return _packed([*texts, *(str(word) for word in others)])


def _packed(texts: Iterable[str]) -> list[str]:
    messages: list[str] = []
    for text in texts:
        if messages and len(messages[-1]) + 1 + len(text) <= MESSAGE_BYTES_MAX:
            messages[-1] += f" {text}"
        else:
            messages.append(text)
    return messages


def _parse(text: str) -> Word | None:
    if (match := _LANE.fullmatch(text)) is not None:
        queue_id = int(match[1])
        return LaneReady(queue_id, int(match[2]), int(match[3])) if queue_id <= _INTEGER_MAX else None
    if (match := _BEAT.fullmatch(text)) is not None:
        worker_id = int(match[1])
        return BeatNow(worker_id) if worker_id <= _INTEGER_MAX else None
    if (match := _CHECK.fullmatch(text)) is not None:
        return SelfCheck(match[1])
    return _PLAIN.get(text)
