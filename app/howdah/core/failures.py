"""Errors of runs as history keeps them: JSON that PostgreSQL can store, of bounded size. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from howdah.core.entries import storable

TYPE_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 2_000
TRACEBACK_CHARS_MAX: Final = 16_000


def error_text(kind: str, message: str, trace: str | None = None, **more: str | int) -> bytes:
    """Write an error as JSON.

    Args:
        kind: What programs tell it by; cut to `TYPE_CHARS_MAX`.
        message: For people; cut to `MESSAGE_CHARS_MAX`.
        trace: Where it was raised; of a long one the end is kept, which says most.
        more: What else programs may want to know; storable, and short.
    """
    fields: dict[str, str | int] = {
        "type": storable(kind[:TYPE_CHARS_MAX]),
        "message": storable(_cut(message, MESSAGE_CHARS_MAX)),
    }
    if trace is not None:
        fields["traceback"] = storable(_cut_start(trace, TRACEBACK_CHARS_MAX))
    return msgspec.json.encode(fields | more)


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[:chars_max]}… ({len(text)} characters)"


def _cut_start(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"({len(text)} characters) …{text[-chars_max:]}"
