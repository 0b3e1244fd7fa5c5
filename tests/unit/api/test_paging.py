"""Query parameters and cursors, without a server."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.api.paging import LIMIT_DEFAULT, LIMIT_MAX, limit_of, query, read_cursor, write_cursor
from howdah.api.problems import Problem


def call(path: str = "/v1/tasks", query_string: str = "", tenant_id: int = 1, secret: bytes = b"s" * 32) -> Any:
    """As much of a request as paging looks at."""
    return SimpleNamespace(
        scope={"path": path, "query_string": query_string.encode("latin-1")},
        key=SimpleNamespace(tenant_id=tenant_id, cursor_secret=secret),
    )


@given(position=st.binary(max_size=128), filters=st.dictionaries(st.sampled_from(["state", "queue", "tag"]), st.text()))
def test_cursor_comes_back_as_it_went_out(position: bytes, filters: dict[str, str]) -> None:
    """Any position, with any filters, also when the page's size changes on the way."""
    cursor = write_cursor(call(), {**filters, "limit": "5"}, position)

    assert read_cursor(call(), {**filters, "limit": "7", "cursor": cursor}) == position
    assert cursor.isascii()


@given(position=st.binary(min_size=16, max_size=16), flipped=st.integers(min_value=0, max_value=32 * 8 - 1))
def test_cursor_with_any_bit_changed_is_refused(position: bytes, flipped: int) -> None:
    """No part of a cursor can be changed unnoticed."""
    raw = bytearray(base64.urlsafe_b64decode(write_cursor(call(), {}, position) + "="))
    raw[flipped // 8] ^= 1 << (flipped % 8)
    with pytest.raises(Problem) as caught:
        read_cursor(call(), {"cursor": base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")})

    assert caught.value.code == "bad_cursor"


@given(st.text(max_size=60))
def test_any_text_is_no_cursor(text: str) -> None:
    """Whatever is sent as a cursor is refused as one."""
    with pytest.raises(Problem) as caught:
        read_cursor(call(), {"cursor": text})

    assert caught.value.code == "bad_cursor"


@pytest.mark.parametrize(
    "other",
    [
        call(path="/v1/queues"),
        call(tenant_id=2),
        call(secret=b"t" * 32),
    ],
)
def test_cursor_of_another_place_is_refused(other: Any) -> None:
    """A cursor is of one list of one tenant."""
    cursor = write_cursor(call(), {}, b"position")
    with pytest.raises(Problem):
        read_cursor(other, {"cursor": cursor})


def test_filters_cannot_be_shifted_into_each_other() -> None:
    """What is bound to a cursor is unambiguous."""
    cursor = write_cursor(call(), {"queue": "a", "tag": "b"}, b"p")
    for others in ({"queue": "a', 'tag': 'b"}, {"queue": "ab", "tag": ""}, {"tag": "a", "queue": "b"}):
        with pytest.raises(Problem):
            read_cursor(call(), {**others, "cursor": cursor})


def test_limit_has_a_default_and_bounds() -> None:
    """1 to the largest page."""
    assert limit_of({}) == LIMIT_DEFAULT
    assert [limit_of({"limit": text}) for text in ("1", "007", str(LIMIT_MAX))] == [1, 7, LIMIT_MAX]
    for text in ("0", "-1", str(LIMIT_MAX + 1), "1.0", "", " 1", "٣", "9" * 40):
        with pytest.raises(Problem, match="limit"):
            limit_of({"limit": text})


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=80))
def test_any_query_is_read_or_refused(text: str) -> None:
    """Whatever stands behind the question mark: parameters that are allowed, or a problem."""
    code = "bad_parameter"
    found: dict[str, str] = {}
    try:
        found = query(call(query_string=text), ("a", "b"))
    except Problem as problem:
        code = problem.code

    assert set(found) <= {"a", "b"}
    assert code == "bad_parameter"
