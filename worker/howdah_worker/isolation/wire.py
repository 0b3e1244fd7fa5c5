"""What a worker and its children say to each other: frames of a length and a JSON text.

Nothing is pickled: what a handler does to its end of the socket can at worst make its own
run fail.
"""

from __future__ import annotations

import struct
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from howdah.core.errors import HowdahError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# A result has 64 KiB at most, an error a traceback of 16,000 characters, which JSON may escape, and what a handler
# enqueues 2 MiB.
CHILD_FRAME_BYTES_MAX: Final = 3_145_728
_LENGTH: Final = struct.Struct(">I")


class Hello(msgspec.Struct, tag=True):
    """The first word of a worker: what the child needs to become one of its own."""

    modules: list[str]
    path: list[str]
    database_url: str
    direct_url: str | None
    schema: str
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["json", "text"]


class Order(msgspec.Struct, tag=True):
    """A run to be done.

    Attributes:
        number: Of this run among those of the child.
        started_at: Monotonic instant at which its timeout began; all processes of a machine share that clock.
        asked_at: The same clock now.
        now: The database's time at `asked_at`.
    """

    number: int
    handler: str
    tenant: str
    queue: str
    tenant_id: int
    task_id: bytes
    queue_id: int
    claim_no: int
    attempt: int
    token: bytes
    timeout_s: float
    payload: bytes | None
    tags: bytes | None
    traceparent: str | None
    parent_id: bytes | None
    completes_batch_id: bytes | None
    batch_id: bytes | None
    has_follow_ups: bool | None
    started_at: float
    asked_at: float
    now: datetime


class Told(msgspec.Struct, tag=True):
    """The handler of this run should stop."""

    number: int


class MayRecord(msgspec.Struct, tag=True):
    """The answer to `Recording`."""

    number: int
    is_allowed: bool


class Ready(msgspec.Struct, tag=True):
    """The first word of a child: the handlers that it has found, and where."""

    handlers: dict[str, str]


class Refused(msgspec.Struct, tag=True):
    """The child cannot work, for this reason."""

    reason: str


class Recording(msgspec.Struct, tag=True):
    """`ctx.transaction()` is about to record the run's success, once this is answered."""

    number: int


class Recorded(msgspec.Struct, tag=True):
    """`ctx.transaction()` has recorded the success, or knows that it has not."""

    number: int
    is_recorded: bool


class Logged(msgspec.Struct, tag=True):
    """The handler says something of its task: an `entries.Entry`; with a fraction it is progress."""

    number: int
    level: int
    message: str
    fields: bytes | None
    fraction: float | None


class Ended(msgspec.Struct, tag=True, kw_only=True):
    """The handler has ended: an `outcome.Ending`.

    Attributes:
        number: Of the order.
        outcome: As in an ending.
        result: JSON, as it is stored; unset for none.
        error: JSON, as it is stored; unset for none.
        retryable: As in an ending.
        retry_in_s: As in an ending.
        is_decided: As in an ending.
        has_seen: The handler has looked, and seen that it should stop.
        is_leaving: The process ends now: it was told to.
        enqueued: Tasks that it has enqueued, JSON objects.
    """

    number: int
    outcome: str
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    retryable: bool
    retry_in_s: float | None
    is_decided: bool
    has_seen: bool
    is_leaving: bool
    enqueued: list[msgspec.Raw] = []


ToChild: TypeAlias = Hello | Order | Told | MayRecord
ToWorker: TypeAlias = Ready | Refused | Recording | Recorded | Logged | Ended

_encode: Final = msgspec.json.Encoder().encode
_to_child: Final = msgspec.json.Decoder(ToChild)
_to_worker: Final = msgspec.json.Decoder(ToWorker)


class FrameInvalid(HowdahError):
    """What came over the socket is no frame of ours."""


def frame(message: ToChild | ToWorker) -> bytes:
    """Return a message as it travels."""
    text = _encode(message)
    return _LENGTH.pack(len(text)) + text


class Frames:
    """Cuts what a child sends into messages; it is not trusted."""

    def __init__(self) -> None:
        """Begin with nothing received."""
        self._received = bytearray()

    def take(self, data: bytes) -> Iterator[ToWorker]:
        """Add what was received, and yield the messages that are whole.

        Raises:
            FrameInvalid: That is no message, or too long for one.
        """
        received = self._received
        received += data
        while len(received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received)
            if length > CHILD_FRAME_BYTES_MAX:
                raise FrameInvalid("what it sent is no message")
            end = _LENGTH.size + length
            if len(received) < end:
                break
            try:
                message: ToWorker = _to_worker.decode(bytes(received[_LENGTH.size : end]))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise FrameInvalid(f"what it sent is no message: {error}") from None
            del received[:end]
            yield message


def next_word(stream: BinaryIO) -> ToChild | None:
    """Wait for what the worker says next, and is trusted with; None once it has gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    text = stream.read(length)
    return _to_child.decode(text) if len(text) == length else None
