"""What people see: lines above a block that stays at the bottom."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from howdah.up.screen import Screen

if TYPE_CHECKING:
    import pytest


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_block_is_drawn_anew_below_new_lines_on_a_terminal() -> None:
    """A line pushes the block down: the old one is erased, then line and block are written."""
    out = _Terminal()
    screen = Screen(out)
    screen.show(["a", "b"])
    screen.say("line")
    screen.show(["c"])

    assert out.getvalue() == "a\nb\n\x1b[2F\x1b[Jline\na\nb\n\x1b[2F\x1b[Jc\n"


def test_block_that_was_left_is_not_erased() -> None:
    """The last table stays to be read after the end."""
    out = _Terminal()
    screen = Screen(out)
    screen.show(["table"])
    screen.leave()
    screen.say("stopped")

    assert out.getvalue() == "table\nstopped\n"


def test_lines_of_a_block_do_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wider than the terminal is cut, so that the block has as many rows as lines."""
    monkeypatch.setenv("COLUMNS", "5")
    out = _Terminal()
    Screen(out).show(["1234567"])

    assert out.getvalue() == "12345\n"


def test_no_control_codes_go_to_a_file() -> None:
    """Where output is no terminal, everything is plain lines."""
    out = io.StringIO()
    screen = Screen(out)
    screen.show(["a"])
    screen.say("line")

    assert out.getvalue() == "a\nline\n"


def test_reader_that_went_away_does_not_hurt() -> None:
    """Output into a closed pipe is given up in silence."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Broken())
    screen.say("line")
    screen.show(["block"])

    assert not screen.is_terminal
