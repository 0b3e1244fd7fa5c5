"""JSON pointers (RFC 6901): to a place in a text, and out of what msgspec says about a value that does not fit."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import msgspec

_PLACE: Final = re.compile(r"(?P<said>.*) - at `(?P<key>key` in `)?\$(?P<path>.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+)\]|(?P<unknown>\[\.\.\.\])")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]', re.DOTALL)
# Measured: 18 to 27 ms. A text that has more of them before the place is written to keep us busy.
_WALKED_TOKENS: Final = 50_000
# /tasks/17/http/headers/A is the longest way to a field; what is below is the client's own.
_NAMES_MAX: Final = 5
# No field of ours has a longer name, and an answer need not repeat a longer one.
_NAME_LENGTH_MAX: Final = 128
_FIELD: Final = re.compile(r"(?:unknown field|missing required field) `(?P<name>.*)`", re.DOTALL)


def escape(name: str) -> str:
    """Return a name as one token of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def unescape(token: str) -> str:
    """Return the name that a token of a JSON pointer stands for."""
    return token.replace("~1", "/").replace("~0", "~")


def pointer_at(text: bytes, *, offset: int = sys.maxsize, level: int = sys.maxsize) -> str:
    """Say where in a JSON text a place is, whether the text is valid beyond it or not.

    Args:
        text: What begins as JSON; of anything else the answer is as good as a guess.
        offset: The place, as a number of bytes.
        level: Or: the first bracket that goes deeper than so many levels.

    Returns:
        Pointer to the innermost value that is known to contain the place, at most
        `_NAMES_MAX` steps deep and not into a `payload`. Empty for the whole text,
        or if the place is too far behind.
    """
    # Of each open object or array: a key, or None before the first; or an index.
    steps: list[str | int | None] = []
    is_key = False
    for count, token in enumerate(_TOKEN.finditer(text)):
        if token.end() > offset:
            if steps and text[offset : offset + 1] == b",":
                # A comma belongs to what it parts, not to the value before it.
                steps[-1] = None
            break
        if count == _WALKED_TOKENS:
            return ""
        first = text[token.start()]
        if first in b"[{":
            if len(steps) == level:
                break
            is_key = first == ord("{")
            steps.append(None if is_key else 0)
        elif not steps:
            continue
        elif first in b"]}":
            steps.pop()
            is_key = False
        elif first == ord(","):
            last = steps[-1]
            is_key = not isinstance(last, int)
            steps[-1] = last + 1 if isinstance(last, int) else None
        elif first == ord('"') and is_key:
            steps[-1] = _key_of(token[0])
        elif first == ord(":"):
            is_key = False
    return _pointer_of(steps)


def _key_of(quoted: bytes) -> str | None:
    """Return a key as text; None if it has none (its escapes are wrong), or a very long one."""
    try:
        key: str = json.loads(quoted, strict=False) if b"\\" in quoted else quoted[1:-1].decode()
        key.encode()
    except ValueError:
        return None
    return key if len(key) <= _NAME_LENGTH_MAX else None


def _pointer_of(steps: list[str | int | None]) -> str:
    pointer = ""
    for step in steps[:_NAMES_MAX]:
        if step is None:
            break
        pointer += f"/{escape(str(step))}"
        if step == "payload":
            break
    return pointer


def fault_of(error: msgspec.DecodeError) -> tuple[str, str]:
    """Say where a value does not fit, and how.

    Where msgspec does not tell a key (it writes `[...]` for values of a free
    mapping), the pointer ends at the mapping.

    Returns:
        JSON pointer (empty for the whole) and a sentence for the sender without
        the place, for example ("/user/id", "Expected `int`, got `str`").
    """
    said, tokens = str(error), []
    place = _PLACE.fullmatch(said)
    if place is not None:
        said = f"{place['said']} as a key" if place["key"] else place["said"]
        for step in _STEP.finditer(place["path"]):
            if step["unknown"]:
                break
            tokens.append(step["name"] or step["index"])
    field = _FIELD.search(said)
    if field is not None and not (place and "[...]" in place["path"]):
        tokens.append(field["name"])
    return "".join(f"/{escape(token)}" for token in tokens), said
