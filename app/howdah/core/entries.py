"""Entries of a task's log, as handlers make them. Pure.

A handler that logs must not fail for it: whatever it says becomes something that PostgreSQL can
hold, cut to size. Only what cannot be meant is refused: an unknown level, a progress that is none.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
MESSAGE_BYTES_MAX: Final = 8_192
FIELDS_BYTES_MAX: Final = 8_192
# Progress is written again and again; what it says is a caption.
CAPTION_CHARS_MAX: Final = 500

# Escapes of what jsonb refuses, with the backslashes before them: of an even number none escapes the `u`.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class Entry(NamedTuple):
    """One entry that a handler made.

    Attributes:
        level: The number.
        message: Storable text, perhaps cut.
        fields: JSON text of an object; None if there are none.
        fraction: Of an entry about progress: how much is done, 0 to 1.
    """

    level: int
    message: str
    fields: bytes | None = None
    fraction: float | None = None

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return len(self.message) + len(self.fields or b"") + 64


def entry(message: object, level: str, fields: dict[str, object]) -> Entry:
    """Make an entry of what a handler says; never fails for what is said.

    Raises:
        ValueError: There is no such level.
    """
    number = LEVELS.get(level)
    if number is None:
        raise ValueError(f"there is no level {level!r}: take {', '.join(LEVELS)}")
    return Entry(number, _text(message), _json(fields) if fields else None)


def progress_entry(fraction: float | None, message: object, percent: float | None) -> Entry:
    """Make an entry about progress; exactly one of `fraction` and `percent` says how much is done.

    Raises:
        ValueError: It is no number from 0 to 1, or to 100.
    """
    if (fraction is None) == (percent is None):
        raise ValueError("give either a fraction, 0 to 1, or percent, 0 to 100")
    try:
        done = float(fraction) if fraction is not None else float(percent or 0) / 100
    except (TypeError, OverflowError) as error:
        raise ValueError(f"progress must be a number: {error}") from None
    if not (math.isfinite(done) and 0 <= done <= 1):
        raise ValueError("progress must be 0 to 1, or 0 to 100 percent")
    return Entry(LEVELS["info"], "" if message is None else _text(message)[:CAPTION_CHARS_MAX], None, done)


def storable(text: str) -> str:
    """Return the text without what PostgreSQL cannot store: NUL, and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _text(message: object) -> str:
    try:
        text = message if isinstance(message, str) else str(message)
    except Exception as error:
        return f"(the message cannot be read: {type(error).__name__})"
    # A text of 10 MB is cut before anything is done with all of it.
    encoded = storable(text[:MESSAGE_BYTES_MAX]).encode()
    if len(text) <= MESSAGE_BYTES_MAX and len(encoded) <= MESSAGE_BYTES_MAX:
        return encoded.decode()
    mark = f"… ({len(text)} characters)"
    return encoded[: MESSAGE_BYTES_MAX - len(mark.encode())].decode(errors="ignore") + mark


def _json(fields: dict[str, object]) -> bytes:
    try:
        written = msgspec.json.encode(fields, enc_hook=str)
    except Exception:
        # Lone surrogates, integers past 64 bits, circles: each value for itself, as text.
        written = msgspec.json.encode({storable(name): _shown(value) for name, value in fields.items()})
    if len(written) > FIELDS_BYTES_MAX:
        return b'{"cut": "the fields had %d bytes, of which %d are allowed"}' % (len(written), FIELDS_BYTES_MAX)
    return _NUL.sub(rb"\1\\ufffd", written)


def _shown(value: object) -> str:
    try:
        return storable(str(value)[:MESSAGE_BYTES_MAX])
    except Exception as error:
        return f"(cannot be read: {type(error).__name__})"
