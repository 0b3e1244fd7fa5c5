"""What states there are, and every move between them.

This table is the source of truth for the state machine. Each SQL file that
changes where a task stands says so in its header, one line per move:

    -- moves: running -> waiting (retry)

A test compares the union of these lines with `MOVES`. Stages are what the
database tells apart; the states that a client sees (`TaskState`) refine the
stage `waiting` by time and attempts.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final, NamedTuple


class TaskState(StrEnum):
    """The state of a task as clients see it; derived from rows, stored nowhere."""

    SCHEDULED = "scheduled"
    """Waits for its first attempt; `run_at` lies ahead."""
    QUEUED = "queued"
    """Ready: waits for a worker."""
    BLOCKED = "blocked"
    """Waits for something besides time and a worker's free slot; see `BlockedBy`."""
    RUNNING = "running"
    """A worker holds its lease."""
    RETRYING = "retrying"
    """Waits for its next attempt after one that failed."""
    AWAITING_CALLBACK = "awaiting_callback"
    """The receiver accepted it with 202 and owes the outcome."""
    SUCCEEDED = "succeeded"
    """Ended well."""
    FAILED = "failed"
    """Spent its attempts or its age, or failed for good; a dead letter until replayed or purged."""
    CANCELLED = "cancelled"
    """Ended by request."""
    EXPIRED = "expired"
    """Not started before its `expires_at`."""

    @property
    def is_final(self) -> bool:
        """Whether a task stays in this state unless someone replays it."""
        return self in _FINAL


_FINAL: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


class Outcome(StrEnum):
    """How one run, that is one claim of a task, ended. A row of `finished_runs` carries one."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RELEASED = "released"
    """Handed back unstarted or by a drain; no attempt was spent."""
    LOST = "lost"
    """The lease ended without a word from the worker."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class BlockedBy(IntFlag):
    """What a blocked run waits for; bits of `runs.blocked_by`."""

    STEPS = 1
    """Earlier steps of its workflow."""
    APPROVAL = 2
    """A person's approval."""
    FLOW_KEY = 4
    """Room under its flow key's limit."""
    NO_WORKER = 8
    """A live worker that serves its target."""


class Priority(IntEnum):
    """The priorities of lanes, by number; clients name the first four."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3
    GRANTED = 4
    """Internal: a run whose flow key has just been given room; claimed first."""


class Stage(StrEnum):
    """Where a task stands in the database."""

    NEW = "new"
    """Not stored yet."""
    WAITING = "waiting"
    """A run without a lease: scheduled, queued or retrying."""
    BLOCKED = "blocked"
    """A run whose `blocked_by` is not zero."""
    RUNNING = "running"
    """A run with a lease that a worker renews."""
    AWAITING = "awaiting"
    """A run with a lease whose receiver accepted it, and owes the outcome."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """A dead letter."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Move(NamedTuple):
    """One step that a task may take, and why."""

    source: Stage
    target: Stage
    reason: str

    def __str__(self) -> str:
        """Write the move as SQL headers do."""
        return f"{self.source} -> {self.target} ({self.reason})"


MOVES: Final = frozenset(
    {
        Move(Stage.NEW, Stage.WAITING, "enqueue"),
        Move(Stage.WAITING, Stage.RUNNING, "claim"),
        Move(Stage.RUNNING, Stage.RUNNING, "heartbeat"),
        Move(Stage.RUNNING, Stage.SUCCEEDED, "finish"),
        # A failed attempt with attempts and age left, and one without (or lost too often).
        Move(Stage.RUNNING, Stage.WAITING, "retry"),
        Move(Stage.RUNNING, Stage.FAILED, "dead_letter"),
        # Handed back, or put off by its handler, without spending an attempt.
        Move(Stage.RUNNING, Stage.WAITING, "release"),
        Move(Stage.RUNNING, Stage.WAITING, "snooze"),
        # The lease ended without a word from its worker.
        Move(Stage.RUNNING, Stage.WAITING, "lost"),
        # A cancel of a running task is first noted on its run and told by the
        # heartbeat; the worker (or the end of its lease) then ends it.
        Move(Stage.RUNNING, Stage.RUNNING, "cancel_request"),
        Move(Stage.RUNNING, Stage.CANCELLED, "cancel"),
        Move(Stage.WAITING, Stage.CANCELLED, "cancel"),
        Move(Stage.BLOCKED, Stage.CANCELLED, "cancel"),
        # A new task with its dedup key takes its place.
        Move(Stage.WAITING, Stage.CANCELLED, "replace"),
        Move(Stage.BLOCKED, Stage.CANCELLED, "replace"),
        # Its expires_at passed before a worker took it.
        Move(Stage.WAITING, Stage.EXPIRED, "expire"),
        Move(Stage.BLOCKED, Stage.EXPIRED, "expire"),
        # The receiver of a callback answered 202. It is to report the outcome, and may say that it is still at it;
        # if it does not, its attempt ends as one that timed out.
        Move(Stage.RUNNING, Stage.AWAITING, "await"),
        Move(Stage.AWAITING, Stage.AWAITING, "heartbeat"),
        Move(Stage.AWAITING, Stage.SUCCEEDED, "finish"),
        Move(Stage.AWAITING, Stage.WAITING, "retry"),
        Move(Stage.AWAITING, Stage.FAILED, "dead_letter"),
        Move(Stage.AWAITING, Stage.CANCELLED, "cancel"),
        # A client moves it in time, or to another lane.
        Move(Stage.WAITING, Stage.WAITING, "run_now"),
        Move(Stage.BLOCKED, Stage.BLOCKED, "run_now"),
        Move(Stage.WAITING, Stage.WAITING, "change"),
        Move(Stage.BLOCKED, Stage.BLOCKED, "change"),
        Move(Stage.BLOCKED, Stage.WAITING, "change"),
        # A dead letter gets all its attempts again.
        Move(Stage.FAILED, Stage.WAITING, "replay"),
        # Its flow key has no room, until another task of the key ends; or its rate lets it start later only.
        Move(Stage.WAITING, Stage.BLOCKED, "hold"),
        Move(Stage.BLOCKED, Stage.WAITING, "grant"),
        Move(Stage.WAITING, Stage.WAITING, "put_off"),
        # No live worker serves its target; later one does again.
        Move(Stage.WAITING, Stage.BLOCKED, "park"),
        Move(Stage.BLOCKED, Stage.WAITING, "unpark"),
    }
)


def parse_move(text: str) -> Move:
    """Read what stands after `moves:` in a SQL header.

    Raises:
        ValueError: The text is not of the form `stage -> stage (reason)`.
    """
    words = text.split()
    if len(words) != 4 or words[1] != "->" or not (words[3].startswith("(") and words[3].endswith(")")):
        raise ValueError(f"not a move: {text!r}; write for example: running -> waiting (retry)")
    return Move(Stage(words[0]), Stage(words[2]), words[3][1:-1])
