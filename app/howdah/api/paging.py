"""Query parameters and cursors of lists.

A cursor says where the next page begins. It is opaque and authenticated, for
this tenant and these filters: one that was changed, or is used with another
list, is refused instead of giving a page that nobody asked for.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from howdah.api.problems import Fault, Problem
from howdah.api.shapes import Moment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from howdah.api.call import Call

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
# Longer ones cannot be valid; they are refused before any of their parameters is looked at.
QUERY_BYTES_MAX: Final = 4_096

_MAC_BYTES: Final = 16
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def bad_parameter(name: str, detail: str) -> Problem:
    """Return the problem with one parameter."""
    return Problem("bad_parameter", f"{name} {detail}", [Fault(detail, parameter=name)])


def query(call: Call, allowed: Collection[str]) -> dict[str, str]:
    """Return the query parameters of a request.

    Raises:
        Problem: One is unknown, given twice, or is not UTF-8.
    """
    raw: bytes = call.scope["query_string"]
    if not raw:
        return {}
    if len(raw) > QUERY_BYTES_MAX:
        raise Problem("bad_parameter", f"The query must have at most {QUERY_BYTES_MAX} bytes.")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Problem("bad_parameter", "The query is malformed.") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise bad_parameter(name[:100], f"is not a parameter here; there are: {known}")
        if name in parameters:
            raise bad_parameter(name, "is given twice")
        if "\0" in value:
            raise bad_parameter(name, "must not contain NUL")
        parameters[name] = value
    return parameters


def limit_of(parameters: Mapping[str, str]) -> int:
    """Return how many rows a page shall have.

    Raises:
        Problem: It is not 1 to `LIMIT_MAX`.
    """
    text = parameters.get("limit")
    if text is None:
        return LIMIT_DEFAULT
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
        raise bad_parameter("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def tag_of(parameters: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the tag that a list is filtered by, as name and value.

    Raises:
        Problem: It is not name:value.
    """
    tag = parameters.get("tag")
    if tag is None:
        return None
    name, separator, value = tag.partition(":")
    if not (name and separator):
        raise bad_parameter("tag", "must be name:value")
    return name, value


def uuid_of(parameters: Mapping[str, str], name: str) -> UUID | None:
    """Return a parameter as a UUID.

    Raises:
        Problem: It is none, as they are written here.
    """
    text = parameters.get(name)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        found = UUID(text)
        # Python also reads braces, urn: and missing hyphens.
        if str(found) == text:
            return found
    raise bad_parameter(name, "must be a UUID, in lower case")


def instant_of(parameters: Mapping[str, str], name: str) -> datetime | None:
    """Return a parameter as an instant.

    Raises:
        Problem: It is no RFC 3339 timestamp with an offset.
    """
    text = parameters.get(name)
    if text is None:
        return None
    try:
        instant: datetime = msgspec.convert(text, Moment)
    except msgspec.ValidationError:
        raise bad_parameter(name, "must be an RFC 3339 timestamp with an offset") from None
    return instant


def write_cursor(call: Call, parameters: Mapping[str, str], position: bytes) -> str:
    """Make the cursor of the page that begins after a position."""
    return base64.urlsafe_b64encode(_mac(call, parameters, position) + position).decode().rstrip("=")


def read_cursor(call: Call, parameters: Mapping[str, str]) -> bytes | None:
    """Return the position that a request's cursor holds, None if it has no cursor.

    Raises:
        Problem: The cursor was not made by us, for this tenant, list and filter.
    """
    text = parameters.get("cursor")
    if text is None:
        return None
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _bad_cursor() from None
    position = raw[_MAC_BYTES:]
    # Base64 has several spellings of the same bytes; ours is the one without spare bits.
    is_ours = write_cursor(call, parameters, position) == text
    if not is_ours or not hmac.compare_digest(raw[:_MAC_BYTES], _mac(call, parameters, position)):
        raise _bad_cursor()
    return position


def _bad_cursor() -> Problem:
    detail = "is not a cursor of this list; begin without one"
    return Problem("bad_cursor", f"cursor {detail}", [Fault(detail, parameter="cursor")])


def _mac(call: Call, parameters: Mapping[str, str], position: bytes) -> bytes:
    """Authenticate a position for what the list shows; the page's size may change on the way."""
    shown = sorted((name, value) for name, value in parameters.items() if name not in ("cursor", "limit"))
    bound = repr((call.key.tenant_id, call.scope["path"], shown)).encode()
    return hmac.digest(call.key.cursor_secret, bound + b"\0" + position, "sha256")[:_MAC_BYTES]
