"""Every condition that Howdah raises, in one tree.

Callers catch the narrowest class that they can act on; only a process's main
function catches the root. Each class keeps what it was told as attributes, so
that logs and problem documents need not parse messages.

    HowdahError
     ├── StartRefused            the process must not start (it says why and exits)
     │    ├── SettingInvalid     a HOWDAH_* variable is missing, wrong or unknown
     │    ├── SchemaRefused      the schema is older or breakingly newer than this code
     │    ├── MigrationFailed    a change of the schema could not be applied
     │    ├── ServerRefused      PostgreSQL's settings would break a promise
     │    ├── EmbeddedUnavailable  the embedded PostgreSQL cannot be started here
     │    ├── ClockSkewed        this machine's clock is too far from the database's
     │    ├── HandlerImportFailed  a module of HOWDAH_HANDLERS could not be imported
     │    └── HandlerUnfound     a child process does not find an isolated handler
     ├── UpRefused               `howdah up` cannot run here, or one of its processes cannot
     ├── DatabaseUnavailable     PostgreSQL cannot be reached now; repeat later
     │    ├── StorageUnavailable  it answers, but has no room (or no partition) for new rows
     │    └── ClockUnset         the database's time was never sampled
     ├── Refused                 a request that was understood and is not allowed
     ├── LeaseLost               the lease is no longer held: the outcome was not recorded
     ├── EnqueueInvalid          what a handler wants to enqueue cannot be a task
     ├── EnqueueRefused          a task that a handler enqueued is refused: its success was not recorded
     ├── SignatureInvalid        a received callback is not genuine, or too old
     ├── Stopped                 a wait ended because the process is to stop
     ├── ProcessFailed           the process must end, with exit code 1
     │    ├── LoopFailed         a background loop crashed again and again
     │    ├── RegistrationLost   the database does not know this worker any more
     │    └── ReportsLost        a worker ended with outcomes that it could not record
     ├── HandlerInvalid          a handler was declared in a way that cannot work
     │    └── HandlerDuplicate   two functions claim one handler name
     ├── PayloadMismatch         a payload does not fit the handler's annotation
     ├── ResultInvalid           what a handler returned cannot be stored
     ├── TransactionUnavailable  a handler asked for a transaction where there is no database
     └── DurationInvalid         a text is not a duration (also a ValueError)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


class HowdahError(Exception):
    """The root of all conditions that Howdah raises on purpose."""


class StartRefused(HowdahError):
    """The process must not start; the message tells an operator why."""


class SettingInvalid(StartRefused):
    """A `HOWDAH_*` variable is missing, out of its range, or unknown.

    Attributes:
        variable: The variable's full name, for example `HOWDAH_LEASE_S`.
        reason: What is wrong and what is allowed. Never the value of a secret.
    """

    def __init__(self, variable: str, reason: str) -> None:
        self.variable = variable
        self.reason = reason
        super().__init__(f"{variable}: {reason}")


class SchemaRefused(StartRefused):
    """The schema in PostgreSQL is too old, or newer in a way this code cannot serve."""


class MigrationFailed(StartRefused):
    """A change of the schema could not be applied; nothing of that step was kept.

    Attributes:
        step: The file, or what the migrator was about to do.
        reason: What PostgreSQL said.
    """

    def __init__(self, step: str, reason: str) -> None:
        self.step = step
        self.reason = reason
        super().__init__(f"{step}: {reason}")


class ServerRefused(StartRefused):
    """PostgreSQL is set up so that a promise could not be kept.

    For example `fsync = off`, a read-only server, or a version that is too old.
    """


class EmbeddedUnavailable(StartRefused):
    """The embedded PostgreSQL cannot be started here; the message says what to do about it."""


class ClockSkewed(StartRefused):
    """This machine's wall clock is too far from the database's.

    Attributes:
        skew_s: Database time minus wall-clock time, in seconds.
    """

    def __init__(self, skew_s: float, skew_s_max: float) -> None:
        self.skew_s = skew_s
        direction = "behind" if skew_s > 0 else "ahead of"
        super().__init__(
            f"this machine's clock is {abs(skew_s):.1f} s {direction} the database's; "
            f"at most {skew_s_max:g} s is allowed, so set the clocks by NTP"
        )


class HandlerImportFailed(StartRefused):
    """A module named in `HOWDAH_HANDLERS` could not be imported.

    Attributes:
        module: The module that was to be imported.
        trace: The traceback of the failure as text, without Howdah's own frames.
    """

    def __init__(self, module: str, trace: str) -> None:
        self.module = module
        self.trace = trace
        super().__init__(f"the handler module {module!r} could not be imported:\n{trace}")


class HandlerUnfound(StartRefused):
    """An isolated handler is not found by the child process that is to run it; the message says why."""


class UpRefused(HowdahError):
    """`howdah up` cannot run: its directory or port is taken, or one of its processes refuses to start.

    Attributes:
        exit_code: What the command ends with.
    """

    def __init__(self, reason: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(reason)


class DatabaseUnavailable(HowdahError):
    """PostgreSQL cannot be reached, or ended the connection; a repeat may succeed.

    If a statement was under way, whether it committed is unknown.
    """


class StorageUnavailable(DatabaseUnavailable):
    """PostgreSQL answers but cannot store: its disk is full, or a day's partition is missing."""


class ClockUnset(DatabaseUnavailable):
    """The database's time was asked for before the first sample of it."""

    def __init__(self) -> None:
        super().__init__("the database's time is not known yet: PostgreSQL has not answered since the start")


class Refused(HowdahError):
    """A request was understood and is not allowed.

    Attributes:
        code: Stable, machine-readable; the `code` of the problem document.
        pointer: JSON pointer of the field at fault, or an empty string for the whole.
        detail: One sentence for the person who sent the request.
        task_id: Of a dedup_conflict: the task that holds the key.
    """

    def __init__(self, code: str, pointer: str, detail: str, *, task_id: UUID | None = None) -> None:
        self.code = code
        self.pointer = pointer
        self.detail = detail
        self.task_id = task_id
        super().__init__(f"{code} at {pointer}: {detail}" if pointer else f"{code}: {detail}")


class LeaseLost(HowdahError):
    """The lease is no longer held, so the outcome was not recorded.

    Another worker may already be running the task again. Raised on leaving
    `ctx.transaction()`, it has rolled back what the handler wrote there.
    """


class EnqueueInvalid(HowdahError):
    """`ctx.enqueue()` was given what cannot be a task; the message says why."""


class EnqueueRefused(HowdahError):
    """A task of `ctx.enqueue()` is refused, so the success of the run is not recorded.

    Raised on leaving `ctx.transaction()`, it has rolled back what the handler wrote there.
    """


class SignatureInvalid(HowdahError):
    """A received callback is not genuine or not fresh; the message says which part failed."""


class Stopped(HowdahError):
    """A wait or a repetition ended because the process is to stop."""


class ProcessFailed(HowdahError):
    """The process must end with exit code 1, for its supervisor to start it anew."""


class LoopFailed(ProcessFailed):
    """A background loop crashed again and again; the process must be replaced."""


class RegistrationLost(ProcessFailed):
    """The database does not know this worker any more: it was restored, or a standby that was behind took over."""


class ReportsLost(ProcessFailed):
    """A worker ended with outcomes that it could not record; those runs start again when their leases end."""


class HandlerInvalid(HowdahError):
    """A handler was declared in a way that cannot work; the message says where."""


class HandlerDuplicate(HandlerInvalid):
    """Two functions claim the same handler name.

    Attributes:
        name: The name that is claimed twice.
        first: Where the name was registered, as `file:line`.
        second: Where it was to be registered again.
    """

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        self.first = first
        self.second = second
        super().__init__(f"the handler name {name!r} is taken by {first} and claimed again by {second}")


class PayloadMismatch(HowdahError):
    """A payload does not fit the handler's annotation; running it again cannot help.

    Attributes:
        pointer: JSON pointer into the payload, or an empty string for the whole.
        detail: What was expected there and what was found.
    """

    def __init__(self, pointer: str, detail: str) -> None:
        self.pointer = pointer
        self.detail = detail
        super().__init__(f"payload {pointer or '(whole)'}: {detail}")


class ResultInvalid(HowdahError):
    """What a handler returned cannot be stored as JSON."""


class TransactionUnavailable(HowdahError):
    """A handler asked for a transaction where there is no database."""


class DurationInvalid(HowdahError, ValueError):
    """A text is not a duration that Howdah understands."""
