"""Every error that a client may get, as RFC 9457 problem documents.

`KINDS` is the whole vocabulary: the OpenAPI document and docs are made from it.
Handlers raise `Problem`; the outermost middleware turns it into the document.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID  # noqa: TC003 - msgspec reads the annotations

import msgspec
from msgspec import UNSET, UnsetType

from howdah.core.errors import DatabaseUnavailable, Refused, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTENT_TYPE: Final = b"application/problem+json"
# How long a client shall wait before it repeats a request that met an outage or a full process.
RETRY_AFTER_S: Final = 1


class Kind(NamedTuple):
    """What is fixed about a code."""

    status: int
    title: str
    retryable: bool
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "invalid_json": Kind(400, "The body is not valid JSON", False, "The body is not JSON as RFC 8259 defines it."),
    "json_too_deep": Kind(400, "The body is nested too deeply", False, "Payloads may be nested 64 levels deep."),
    "duplicate_key": Kind(400, "A field is given twice", False, "A field outside of the payload is given twice."),
    "bad_parameter": Kind(400, "A query parameter is wrong", False, "A query parameter is unknown, repeated or wrong."),
    "bad_cursor": Kind(400, "The cursor is not valid", False, "The cursor was changed, or belongs to another list."),
    "unauthorized": Kind(401, "A valid API key is needed", False, "There is no key, or it is not valid now."),
    "forbidden": Kind(403, "The API key may not do this", False, "The key lacks the scope that the detail names."),
    "not_found": Kind(404, "There is no such thing", False, "It does not exist, or it is another tenant's."),
    "method_not_allowed": Kind(405, "The method is not allowed here", False, "The header Allow lists those that are."),
    "request_timeout": Kind(408, "The request took too long to arrive", True, "The body did not arrive in time."),
    "state_conflict": Kind(409, "Its state does not allow this", False, "For example, the task has ended already."),
    "queue_draining": Kind(
        409, "The queue takes no new tasks", False, "It is being drained, until an operator resumes it."
    ),
    "lease_lost": Kind(409, "The attempt has ended", False, "It timed out, was tried again, or had another outcome."),
    "cancelled": Kind(409, "The task was cancelled", False, "Its outcome is not wanted any more."),
    "idempotency_key_in_use": Kind(
        409, "A request with this key is under way", True, "Repeat it later to get the answer of the first."
    ),
    "dedup_conflict": Kind(
        409, "Another task holds the dedup key", False, "Its id is in task_id; nothing was stored, or replayed."
    ),
    "dedup_key_in_use": Kind(
        409, "The dedup key is being taken", True, "Another transaction is about to take the dedup key; try later."
    ),
    "batch_in_use": Kind(
        409, "The batch is being closed", True, "Another transaction is about to close the batch; try later."
    ),
    "flow_key_in_use": Kind(
        409, "The flow key is being made", True, "Another transaction is making the flow key; try later."
    ),
    "payload_too_large": Kind(413, "Too large", False, "The body or the payload is larger than allowed."),
    "unsupported_media_type": Kind(
        415, "The body must be plain JSON", False, "Send application/json, neither compressed nor in parts."
    ),
    "validation": Kind(422, "The request is not valid", False, "Fields at fault are listed in errors."),
    "blocked_address": Kind(
        422, "The address must not be called", False, "The URL of a callback names a private or special address."
    ),
    "idempotency_key_reused": Kind(
        422, "The key belongs to another request", False, "The same Idempotency-Key came with another request before."
    ),
    "backpressure": Kind(
        429,
        "Too much is waiting",
        True,
        "The queue has reached a cap, or this process has all the requests it can hold.",
    ),
    "internal_error": Kind(500, "An unexpected error", True, "A fault of ours; the log has it under the request id."),
    "storage_unavailable": Kind(
        503, "The database is not available", True, "Nothing was accepted that is not stored; try later."
    ),
}


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one part of a request.

    Attributes:
        detail: One sentence: what is allowed.
        pointer: JSON pointer into the body; an empty one points at all of it.
        parameter: Name of the parameter in the query or the path.
        header: Name of the header.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as RFC 9457 describes it."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    request_id: str
    errors: list[Fault]
    task_id: UUID | UnsetType = UNSET


class Problem(Exception):
    """A request cannot be answered as asked.

    Attributes:
        code: One of `KINDS`.
        detail: One sentence for the person who sent the request.
        errors: The parts of the request that are at fault.
        headers: Further headers of the answer.
        task_id: The task that stands in its way.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[Fault] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        task_id: UUID | None = None,
    ) -> None:
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.task_id = task_id
        super().__init__(f"{code}: {detail}")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.code].status

    def document(self, request_id: str) -> ProblemDocument:
        """Write the problem down for one request."""
        kind = KINDS[self.code]
        return ProblemDocument(
            type=f"urn:howdah:problem:{self.code}",
            title=kind.title,
            status=kind.status,
            code=self.code,
            detail=self.detail,
            retryable=kind.retryable,
            request_id=request_id,
            errors=list(self.errors),
            task_id=UNSET if self.task_id is None else self.task_id,
        )

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return every header that belongs to the problem, apart from the length."""
        headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"), *self.headers]
        kind = KINDS[self.code]
        if kind.retryable and kind.status != HTTPStatus.INTERNAL_SERVER_ERROR:
            headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
        if kind.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b'Bearer realm="howdah"'))
        if kind.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            # What is left of the body must not be taken for the next request, nor be waited for.
            headers.append((b"connection", b"close"))
        return headers


def invalid(pointer: str, detail: str, code: str = "validation") -> Problem:
    """Return a problem with one field of the body."""
    where = pointer or "the body"
    return Problem(code, f"{where} {detail}", [Fault(detail, pointer=pointer)])


def refused(problem: str, prefix: str = "", holder: UUID | None = None) -> Problem:
    """Return the problem that a row of `task.enqueue` describes as `<code> <pointer> <what is allowed>`.

    Args:
        problem: As it came.
        prefix: Where the task stands in the body, for example `/tasks/17`.
        holder: The row's id: the task in its way, if that is what is wrong.
    """
    code, pointer, detail = problem.split(" ", 2)
    if code not in KINDS or KINDS[code].status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem("internal_error", "The task could not be stored; the log says why.")
    found = invalid(prefix + ("" if pointer == "/" else pointer), detail, code)
    if code == "dedup_conflict":
        found.task_id = holder
    return found


def of_exception(error: Exception) -> Problem | None:
    """Return the problem that an exception means to a client, or None if it is a fault of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Refused):
        faults = [Fault(error.detail, pointer=error.pointer)] if error.pointer else []
        return Problem(error.code, error.detail, faults, task_id=error.task_id)
    if isinstance(error, StorageUnavailable):
        return Problem("storage_unavailable", "The database cannot store anything at this moment.")
    if isinstance(error, DatabaseUnavailable):
        return Problem("storage_unavailable", "The database does not answer at this moment.")
    return None
