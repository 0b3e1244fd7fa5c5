"""Which method and headers a client may give its callback.

Names that frame the message, that say who sent it, or that another part of the
request decides are reserved. The rule is applied when a task is created and
again before each attempt, because SQL can create tasks as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from howdah.core.errors import Refused
from howdah.core.pointer import escape

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"})

HEADER_COUNT_MAX: Final = 64
HEADER_NAME_LENGTH_MAX: Final = 128
# Servers take 8 KiB of headers at least; ours and the request line need their share.
HEADERS_LENGTH_MAX: Final = 6 * 1024

RESERVED: Final = frozenset(
    {
        # Framing and the connection: a second opinion on these is request smuggling.
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # Set by us from other fields of the task.
        "accept-encoding",
        "content-type",
        "traceparent",
        "tracestate",
        "user-agent",
    }
)
RESERVED_PREFIXES: Final = ("webhook-", "howdah-", "proxy-")

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
# RFC 9110 section 5.5, without its obsolete bytes above ASCII.
_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?", re.ASCII)


def check_headers(headers: Mapping[str, str], pointer: str = "/http/headers") -> list[Refused]:
    """Find every header that a client must not send.

    Args:
        headers: Names and values as the client wrote them.
        pointer: JSON pointer of the whole.

    Returns:
        One refusal for each header at fault, or one if there are too many; none if all is well.
        No refusal repeats a value: it may be a credential.
    """
    if len(headers) > HEADER_COUNT_MAX:
        return [Refused("validation", pointer, f"must have at most {HEADER_COUNT_MAX} headers")]
    found: list[Refused] = []
    seen: set[str] = set()
    for name, value in headers.items():
        fault = _fault(name, value)
        if fault is None and name.lower() in seen:
            fault = "is given twice, in different letter case"
        if fault is not None:
            found.append(Refused("validation", f"{pointer}/{escape(name)}", fault))
        seen.add(name.lower())
    # 4 for the colon, the space and the line's end.
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > HEADERS_LENGTH_MAX:
        found.append(Refused("validation", pointer, f"must have at most {HEADERS_LENGTH_MAX} characters in all"))
    return found


def _fault(name: str, value: str) -> str | None:
    if len(name) > HEADER_NAME_LENGTH_MAX or not _TOKEN.fullmatch(name):
        return f"is not a header name: 1 to {HEADER_NAME_LENGTH_MAX} letters, digits and hyphens"
    lowered = name.lower()
    if lowered in RESERVED or lowered.startswith(RESERVED_PREFIXES):
        return "is set by Howdah"
    if not _VALUE.fullmatch(value):
        return "must be printable ASCII, without line breaks and without white space at either end"
    return None
