"""Retry policies and delays."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.retry import DEFAULT, DELAY_S_MAX, RetryPolicy, check, delay_s


def decode(**fields: object) -> RetryPolicy:
    """Decode a policy as the API would."""
    return msgspec.json.decode(msgspec.json.encode(fields), type=RetryPolicy)


@pytest.mark.parametrize(
    ("policy", "delays_s"),
    [
        (DEFAULT, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (decode(backoff="linear", initial="10s", max="35s"), [10, 20, 30, 35, 35]),
        (decode(backoff="fixed", initial="250ms"), [0.25, 0.25, 0.25]),
        (decode(backoff="list", list=["1s", "1m", "5m"]), [1, 60, 300, 300]),
        (decode(backoff="list", list=["1h"], max="30s"), [30, 30]),
        (decode(initial="0s", factor=100), [0, 0, 0]),
        (decode(initial="1s", max="0s"), [0, 0]),
        (decode(initial="3s", factor=1), [3, 3, 3]),
    ],
)
def test_delay_without_jitter_follows_the_backoff(policy: RetryPolicy, delays_s: list[float]) -> None:
    """Each backoff gives its series, capped at `max`."""
    assert [delay_s(policy, attempt + 1, 0.5) for attempt in range(len(delays_s))] == pytest.approx(delays_s)


@pytest.mark.parametrize(("unit_random", "expected_s"), [(0.0, 8.0), (0.25, 9.0), (0.5, 10.0), (1.0, 12.0)])
def test_delay_with_jitter_spreads_both_ways(unit_random: float, expected_s: float) -> None:
    """The jitter multiplies by 1 - jitter to 1 + jitter, evenly."""
    assert delay_s(decode(backoff="fixed", initial="10s", jitter=0.2), 1, unit_random) == pytest.approx(expected_s)


def test_delay_with_jitter_may_pass_max_but_not_a_day() -> None:
    """`max` caps what jitter then spreads; a day caps all."""
    assert delay_s(decode(backoff="fixed", initial="300s"), 1, 1.0) == pytest.approx(360)
    assert delay_s(decode(backoff="fixed", initial="24h", max="24h", jitter=1), 1, 1.0) == DELAY_S_MAX


@given(
    backoff=st.sampled_from(["exponential", "linear", "fixed"]),
    initial_ms=st.integers(min_value=0, max_value=10**11),
    max_ms=st.integers(min_value=0, max_value=10**11),
    factor=st.floats(min_value=-1e308, max_value=1e308),
    jitter=st.floats(min_value=-1e308, max_value=1e308),
    attempt=st.integers(min_value=1, max_value=10**9),
    unit_random=st.floats(min_value=0, max_value=1),
)
def test_delay_is_finite_for_any_numbers(
    backoff: str, initial_ms: int, max_ms: int, factor: float, jitter: float, attempt: int, unit_random: float
) -> None:
    """Even a policy that validation would refuse gives 0 to 24 h (factor 1e308 overflows a float)."""
    policy = decode(backoff=backoff, initial=f"{initial_ms}ms", max=f"{max_ms}ms", factor=factor, jitter=jitter)
    delay = delay_s(policy, attempt, unit_random)

    assert math.isfinite(delay)
    assert 0 <= delay <= DELAY_S_MAX


def test_check_of_the_default_finds_nothing() -> None:
    """The default policy is allowed."""
    assert check(DEFAULT, "/retry") == []


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"max_attempts": 0}, ["/retry/max_attempts"]),
        ({"max_attempts": 1_000_000_000}, ["/retry/max_attempts"]),
        ({"max_age": "367d"}, ["/retry/max_age"]),
        ({"max_age": "999ms"}, ["/retry/max_age"]),
        ({"initial": "1"}, ["/retry/initial"]),
        ({"max": "25h"}, ["/retry/max"]),
        ({"factor": 0}, ["/retry/factor"]),
        ({"factor": 1e308}, ["/retry/factor"]),
        ({"jitter": -0.1}, ["/retry/jitter"]),
        ({"jitter": 1.1}, ["/retry/jitter"]),
        ({"backoff": "list"}, ["/retry/list"]),
        ({"list": ["1s"]}, ["/retry/list"]),
        ({"backoff": "list", "list": ["1s"] * 101}, ["/retry/list"]),
        ({"backoff": "list", "list": ["1s", "soon"]}, ["/retry/list/1"]),
        ({"statuses": []}, ["/retry/statuses"]),
        ({"statuses": [404, 99, 600]}, ["/retry/statuses/1", "/retry/statuses/2"]),
        ({"statuses": [500] * 101}, ["/retry/statuses"]),
        ({"errors": []}, ["/retry/errors"]),
        ({"errors": ["timeout", "", "x" * 201]}, ["/retry/errors/1", "/retry/errors/2"]),
        ({"errors": ["x"] * 101}, ["/retry/errors"]),
        ({"max_attempts": 0, "jitter": 2, "max": "no"}, ["/retry/max_attempts", "/retry/jitter", "/retry/max"]),
    ],
)
def test_check_points_at_each_field_at_fault(fields: dict[str, object], pointers: list[str]) -> None:
    """Every field that is not allowed is named by its pointer, all at once."""
    found = check(decode(**fields), "/retry")

    assert [refusal.pointer for refusal in found] == pointers
    assert {refusal.code for refusal in found} == {"validation"}


@pytest.mark.parametrize(
    "fields",
    [
        {"max_attempts": "4"},
        {"max_attempts": True},
        {"max_attempts": None},
        {"factor": "2"},
        {"backoff": "never"},
        {"x": 1},
    ],
)
def test_policy_with_wrong_types_is_not_decoded(fields: dict[str, object]) -> None:
    """Types are strict and unknown fields are refused."""
    with pytest.raises(msgspec.ValidationError):
        decode(**fields)
