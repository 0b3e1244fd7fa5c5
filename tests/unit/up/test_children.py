"""What of a child's log reaches the terminal."""

from __future__ import annotations

import pytest

from howdah.up.children import summary_of


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"at":"x","level":"info","event":"run_claimed"}\n', None),
        (
            b'{"level":"warning","logger":"l","pid":1,"event":"lease_lost","run":2}\n',
            "warning lease_lost run=2",
        ),
        (b'{"level":"error","event":"loop_crashed","loop":"claim","trace":"long"}\n', "error loop_crashed loop=claim"),
        (b"Fatal Python error: Segmentation fault\n", "Fatal Python error: Segmentation fault"),
        (b"\n", None),
        (b"[1]\n", None),
        (b"\xff\n", "�"),
    ],
)
def test_line_is_shown_if_it_needs_attention(line: bytes, shown: str | None) -> None:
    """Warnings, errors and what is no log line are shown, without the parts that the file has."""
    assert summary_of(line) == shown
