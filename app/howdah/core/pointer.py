"""JSON pointers (RFC 6901) out of what msgspec says about a value that does not fit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import msgspec

_PLACE: Final = re.compile(r"(?P<said>.*) - at `(?P<key>key` in `)?\$(?P<path>.*)`", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+)\]|(?P<unknown>\[\.\.\.\])")
_FIELD: Final = re.compile(r"(?:unknown field|missing required field) `(?P<name>[^`]*)`")


def escape(name: str) -> str:
    """Return a name as one token of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


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
