"""API keys as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.credentials import ID_LENGTH, SECRET_LENGTH, hash_secret, make_key, split_key


def test_keys_are_drawn_anew_and_long_enough() -> None:
    """Each key is its own, and its secret has at least 160 random bits."""
    keys = [make_key() for _ in range(100)]

    assert len({key.text for key in keys}) == len({key.id for key in keys}) == 100
    assert {len(key.text) for key in keys} == {len("hwd_") + ID_LENGTH + 1 + SECRET_LENGTH}
    assert SECRET_LENGTH * math.log2(62) >= 160


def test_key_comes_apart_into_what_it_was_made_of() -> None:
    """The id finds the row, and the hash of the secret is the one stored."""
    key = make_key()
    parts = split_key(key.text.encode())

    assert parts is not None
    assert parts[0] == key.id
    assert hash_secret(parts[1]) == key.secret_hash
    assert len(key.secret_hash) == 32


@given(st.binary(max_size=80))
def test_other_bytes_are_no_key(text: bytes) -> None:
    """Nothing that was not drawn as a key is looked up."""
    assert split_key(text) is None


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text + "A", lambda text: text[:-1], lambda text: f" {text}"]
)
def test_key_has_one_spelling(change: object) -> None:
    """Upper case, longer, shorter or padded: not a key."""
    assert callable(change)
    assert split_key(change(make_key().text).encode()) is None
