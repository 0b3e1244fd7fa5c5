"""Durations as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.errors import DurationInvalid
from howdah.core.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("0.5s", 0.5),
        ("5m", 300.0),
        ("1.5h", 5_400.0),
        ("7d", 604_800.0),
        ("PT5M", 300.0),
        ("PT0.25S", 0.25),
        ("P1DT12H", 129_600.0),
        ("P2W", 1_209_600.0),
        ("9" * 31 + "d", 8.64e35),
    ],
)
def test_parse_duration_reads_both_spellings(text: str, seconds: float) -> None:
    """Short and ISO 8601 durations give their seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "1e3s",
        ".5s",
        "5.s",
        "5S",
        "1h30m",
        "2w",
        "infinity",
        "NaNs",
        "5s\n",
        "٣s",
        "P",
        "PT",
        "P1Y",
        "P1M",
        "PT5",
        "P1.5DT1H",
        "pt5m",
        "P5M",
        "9" * 32 + "d",
        "1" * 1_000_000 + "s",
    ],
)
def test_parse_duration_with_anything_else_is_refused(text: str) -> None:
    """What is no duration is refused as a ValueError whose message stays short and shows examples."""
    with pytest.raises(DurationInvalid) as caught:
        parse_duration(text)

    assert isinstance(caught.value, ValueError)
    assert "5m" in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.integers(min_value=0, max_value=10**15))
def test_format_duration_reads_back(micros: int) -> None:
    """What format_duration writes means the same microseconds to parse_duration."""
    assert round(parse_duration(format_duration(micros / 1_000_000)) * 1_000_000) == round(
        micros / 1_000_000 * 1_000_000
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.25, "250ms"),
        (0.000_001, "0.000001s"),
        (1.0, "1s"),
        (60.0, "1m"),
        (5_400.0, "90m"),
        (86_400.000_5, "86400.0005s"),
        (1_209_600.0, "14d"),
        (0.999_999_9, "1s"),
    ],
)
def test_format_duration_writes_the_short_spelling(seconds: float, text: str) -> None:
    """Parts that are zero are left out."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_format_duration_out_of_range_is_refused(seconds: float) -> None:
    """What parse_duration would refuse is not written."""
    with pytest.raises(DurationInvalid):
        format_duration(seconds)
