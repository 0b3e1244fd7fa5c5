"""The vocabulary of errors."""

from __future__ import annotations

import msgspec
import pytest

from howdah.api.problems import KINDS, Fault, Problem, ProblemDocument, of_exception, refused
from howdah.core.errors import ClockUnset, DatabaseUnavailable, Refused, StorageUnavailable

STATUSES = {400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503}


def test_kinds_cover_every_status() -> None:
    """Each status that the API uses has a code, and each code a status."""
    assert {kind.status for kind in KINDS.values()} == STATUSES


@pytest.mark.parametrize("code", KINDS)
def test_document_says_what_its_kind_says(code: str) -> None:
    """Type, title, status and whether a repeat may help come from the code alone."""
    problem = Problem(code, "why", [Fault("must not", pointer="/a")])
    written = msgspec.json.decode(msgspec.json.encode(problem.document("request-1")), type=ProblemDocument)
    headers = dict(problem.all_headers())

    assert (written.type, written.code) == (f"urn:howdah:problem:{code}", code)
    assert (written.status, written.title, written.retryable) == KINDS[code][:3]
    assert (written.request_id, written.errors[0].pointer) == ("request-1", "/a")
    assert (b"retry-after" in headers) == (written.retryable and written.status != 500)
    assert (b"www-authenticate" in headers) == (written.status == 401)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("not_found", "", "there is no task"), "not_found"),
        (Refused("state_conflict", "", "the task has ended"), "state_conflict"),
        (DatabaseUnavailable("password authentication failed for user s3cret"), "storage_unavailable"),
        (StorageUnavailable("s3cret table"), "storage_unavailable"),
        (ClockUnset(), "storage_unavailable"),
        (RuntimeError("s3cret"), None),
    ],
)
def test_errors_become_problems_that_tell_no_secrets(error: Exception, code: str | None) -> None:
    """What PostgreSQL says is for the log; clients get our own words."""
    problem = of_exception(error)

    assert (problem.code if problem else None) == code
    assert "s3cret" not in str(problem)


def test_refusal_of_sql_points_into_the_body() -> None:
    """The row's pointer is completed by where the task stands; unknown codes are faults of ours."""
    single = refused("validation /http/url must be short")
    in_batch = refused("payload_too_large /payload must be at most 5 bytes", "/tasks/17")
    whole = refused("validation / must not contain NUL", "/tasks/3")
    ours = refused("internal_error / 42P01")

    assert (single.code, single.errors[0].pointer, single.errors[0].detail) == (
        "validation",
        "/http/url",
        "must be short",
    )
    assert (in_batch.status, in_batch.errors[0].pointer) == (413, "/tasks/17/payload")
    assert whole.errors[0].pointer == "/tasks/3"
    assert (ours.status, ours.errors) == (500, ())
    assert "42P01" not in ours.detail
