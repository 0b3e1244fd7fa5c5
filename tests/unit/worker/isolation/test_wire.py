"""Frames between a worker and its children: whole, in any pieces, and nothing else."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from howdah_worker.isolation.wire import (
    CHILD_FRAME_BYTES_MAX,
    Ended,
    FrameInvalid,
    Frames,
    Ready,
    Recording,
    Told,
    frame,
    next_word,
)


def ended(result: bytes | None) -> Ended:
    """How a run ended well."""
    return Ended(
        number=7,
        outcome="succeeded",
        result=UNSET if result is None else Raw(result),
        retryable=True,
        retry_in_s=None,
        is_decided=False,
        has_seen=False,
        is_leaving=False,
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_messages_come_whole_in_whatever_pieces(sizes: list[int]) -> None:
    """A stream has no borders of its own."""
    sent = [Ready({"a": "here.py:1"}), Recording(3), ended(b'{"a": [1, "\xc3\xa9"]}'), ended(None)]
    stream = b"".join(map(frame, sent))
    frames, got, at = Frames(), [], 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        got += frames.take(stream[at : at + size])
        at += size

    assert got == sent


def test_result_travels_byte_for_byte() -> None:
    """What is stored is what the child wrote."""
    [message] = Frames().take(frame(ended(b'{"a" :  1.0}')))

    assert isinstance(message, Ended)
    assert bytes(message.result) == b'{"a" :  1.0}'  # type: ignore[arg-type]
    assert message.error is UNSET


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        struct.pack(">I", CHILD_FRAME_BYTES_MAX + 1),
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 3) + b"\xff\xff\xff",
        struct.pack(">I", 17) + b'{"type":"Nobody"}',
        struct.pack(">I", 32) + b'{"type":"Recording","number":"x"}'[:32],
        struct.pack(">I", 200_000) + b"[" * 200_000,
        frame(Told(1)),
        struct.pack(">I", 0),
    ],
)
def test_what_is_no_message_of_a_child_is_refused(garbage: bytes) -> None:
    """Whatever a handler writes to the socket, it is no crash of the worker."""
    with pytest.raises(FrameInvalid):
        list(Frames().take(garbage))


def test_what_came_before_garbage_is_heard() -> None:
    """The order of the stream is the order of the news."""
    messages = Frames().take(frame(Recording(1)) + b"\xff" * 8)

    assert next(messages) == Recording(1)
    with pytest.raises(FrameInvalid):
        next(messages)


@pytest.mark.parametrize("cut", [0, 3, 4, 10])
def test_child_hears_the_end_of_its_worker(cut: int) -> None:
    """A word that is cut off is none."""
    stream = io.BytesIO(frame(Told(5)) + frame(Told(6))[:cut])

    assert next_word(stream) == Told(5)
    assert next_word(stream) is None
