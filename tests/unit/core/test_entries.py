"""Entries of logs: whatever a handler says becomes something that can be stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.entries import FIELDS_BYTES_MAX, MESSAGE_BYTES_MAX, entry, progress_entry

ANY_TEXT = st.text(st.characters(codec=None), max_size=50) | st.sampled_from(["\x00", "\\u0000", "\\\\u0000", "\ud800"])


class Odd:
    """A value that cannot even be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no")


def _texts(value: Any) -> list[str]:
    """All texts in a JSON value, names too."""
    if isinstance(value, dict):
        return [text for name, each in value.items() for text in (name, *_texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.floats() | st.lists(ANY_TEXT), max_size=5))
def test_every_entry_can_be_stored(message: str, fields: dict[str, Any]) -> None:
    """No NUL and no lone surrogate, in JSON that is JSON."""
    made = entry(message, "info", fields)
    texts = [made.message, *_texts(json.loads(made.fields or b"{}"))]

    assert [text for text in texts if "\x00" in text] == []
    assert [text.encode().decode() for text in texts] == texts


@given(st.text(alphabet="aé😀\x00", min_size=0, max_size=30).map(lambda text: text * 1_000))
def test_message_is_cut_to_its_bytes(message: str) -> None:
    """However many bytes its characters take; what fits stays whole."""
    made = entry(message, "info", {})

    assert len(made.message.encode()) <= MESSAGE_BYTES_MAX
    if len(message.replace("\x00", "\ufffd").encode()) <= MESSAGE_BYTES_MAX:
        assert made.message == message.replace("\x00", "\ufffd")
    else:
        assert made.message.endswith(f"… ({len(message)} characters)")


def test_nul_in_fields_is_replaced_and_its_spelling_kept() -> None:
    """A text of six characters that looks like the escape is none."""
    made = entry("m", "info", {"nul": "a\x00b", "text": "\\u0000", "both": "\\\x00"})

    assert made.fields is not None
    assert json.loads(made.fields) == {"nul": "a\ufffdb", "text": "\\u0000", "both": "\\\ufffd"}


def test_fields_that_are_too_large_say_so() -> None:
    """And the entry stays small."""
    made = entry("m", "info", {"text": "x" * FIELDS_BYTES_MAX})

    assert made.fields is not None
    assert "bytes" in json.loads(made.fields)["cut"]


def test_what_cannot_be_shown_fails_nobody() -> None:
    """Neither as a message nor as a field."""
    made = entry(Odd(), "error", {"odd": Odd(), "fine": 1})

    assert made.message == "(the message cannot be read: RuntimeError)"
    assert made.fields is not None
    assert json.loads(made.fields)["odd"] == "(cannot be read: RuntimeError)"


def test_unknown_level_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        entry("m", "loud", {})


@pytest.mark.parametrize(
    ("fraction", "percent", "expected"), [(0, None, 0.0), (1, None, 1.0), (0.25, None, 0.25), (None, 40, 0.4)]
)
def test_progress_is_a_fraction_or_percent(fraction: float | None, percent: float | None, expected: float) -> None:
    """Both ends included."""
    made = progress_entry(fraction, "caption" * 1_000, percent)

    assert made.fraction == expected
    assert len(made.message) == 500


@pytest.mark.parametrize(
    ("fraction", "percent"),
    [(None, None), (0.5, 50), (2, None), (-0.1, None), (float("nan"), None), (float("inf"), None), (None, 101)],
)
def test_progress_that_is_none_is_refused(fraction: float | None, percent: float | None) -> None:
    """A mistake of the handler's, told where it is made."""
    with pytest.raises(ValueError, match="0 to 1"):
        progress_entry(fraction, None, percent)
