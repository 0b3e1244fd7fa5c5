"""What a shape allows at a place of a body, in the words of JSON.

The decoder says which Python type it expected. Whoever sent the body wants to
know what to send instead, in any language.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from howdah.api.shapes import DURATION_PATTERN
from howdah.core.pointer import unescape

_WORDS: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: "a string",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.ListType: "an array",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
    inspect.UUIDType: "a UUID",
}


def expectation(shape: type, pointer: str, value: object) -> str:
    """Say what is allowed at a place, as the end of a sentence that begins with the pointer.

    Args:
        shape: Of the whole body.
        pointer: To a value that the shape knows, or to a field that it does not.
        value: What stands there; `UNSET` if nothing does.
    """
    place, is_optional = _type_of(shape), False
    for token in map(unescape, pointer.split("/")[1:]):
        bare = _bare(place)
        if isinstance(bare, inspect.StructType):
            fields = {field.encode_name: field for field in bare.fields}
            if token not in fields:
                return f"is not a field here; there are: {', '.join(fields)}"
            place, is_optional = fields[token].type, not fields[token].required
        elif isinstance(bare, inspect.ListType):
            place, is_optional = bare.item_type, False
        else:
            assert isinstance(bare, inspect.DictType), "nothing else has parts"
            place, is_optional = bare.value_type, False
    if value is msgspec.UNSET:
        return "is required"
    if value is None and is_optional:
        return "must not be null; leave it out"
    return f"must be {_words(place)}"


@cache
def _type_of(shape: type) -> inspect.Type:
    return inspect.type_info(shape)


def _bare(described: inspect.Type) -> inspect.Type:
    described = _unless_null(described)
    return described.type if isinstance(described, inspect.Metadata) else described


def _unless_null(described: inspect.Type) -> inspect.Type:
    """Return what a place allows besides null, where it allows null."""
    if isinstance(described, inspect.UnionType):
        [other] = [each for each in described.types if not isinstance(each, inspect.NoneType)]
        return other
    return described


def _words(described: inspect.Type) -> str:
    if (other := _unless_null(described)) is not described:
        return f"{_words(other)}, or null"
    bare = _bare(described)
    if isinstance(bare, inspect.LiteralType):
        *others, last = map(str, bare.values)
        return f"{', '.join(others)} or {last}"
    extra: dict[str, Any] = (isinstance(described, inspect.Metadata) and described.extra_json_schema) or {}
    if extra.get("pattern") == DURATION_PATTERN:
        return 'a duration such as "30s" or "PT5M"'
    if extra.get("format") == "date-time":
        return "an RFC 3339 timestamp with an offset"
    bounds = f" from {extra['minimum']} to {extra['maximum']}" if "minimum" in extra else ""
    return _WORDS[type(bare)] + bounds
