"""Tokens of callbacks: only the holder of the key makes them, and they name one lease."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from howdah.core.callback_tokens import LENGTH, PREFIX, make_token, mask_tokens, split_token
from howdah.core.model import LeaseKey

KEY = bytes(range(32))
LEASE = LeaseKey(7, bytes(range(16)), bytes(range(16, 32)))

int4 = st.integers(-(2**31), 2**31 - 1)
uuid16 = st.binary(min_size=16, max_size=16)


@given(key=st.binary(min_size=32, max_size=64), tenant_id=int4, queue_id=int4, task_id=uuid16, lease_token=uuid16)
def test_token_is_read_back_and_genuine(
    key: bytes, tenant_id: int, queue_id: int, task_id: bytes, lease_token: bytes
) -> None:
    """Whatever it names, it has the same length, fits a path and a header, and is genuine under its key alone."""
    lease = LeaseKey(tenant_id, task_id, lease_token)
    text = make_token(key, lease, queue_id)
    token = split_token(text)

    assert len(text) == LENGTH
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert token is not None
    assert (token.lease, token.queue_id) == (lease, queue_id)
    assert token.is_genuine(key)
    assert not token.is_genuine(key + b"x")


def test_no_bit_of_a_token_can_be_changed() -> None:
    """Another tenant, queue, task or lease under the same signature is not genuine, nor is another signature."""
    packed = base64.urlsafe_b64decode(make_token(KEY, LEASE, 1).removeprefix(PREFIX))
    for bit in range(len(packed) * 8):
        changed = bytearray(packed)
        changed[bit // 8] ^= 1 << bit % 8
        token = split_token(PREFIX + base64.urlsafe_b64encode(changed).decode())

        assert token is not None
        assert not token.is_genuine(KEY)


def test_neighbours_of_one_claim_have_tokens_of_their_own() -> None:
    """Runs that were claimed together share a lease token; who has the callback token of one has not the other's."""
    [first, second] = [split_token(make_token(KEY, LEASE._replace(task_id=bytes([n]) * 16), 1)) for n in (1, 2)]

    assert first is not None
    assert second is not None
    assert first.lease_token == second.lease_token
    assert not second._replace(mac=first.mac).is_genuine(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        "x" * LENGTH,
        make_token(KEY, LEASE, 1)[:-1],
        make_token(KEY, LEASE, 1) + "A",
        make_token(KEY, LEASE, 1).upper(),
        make_token(KEY, LEASE, 1)[:-1] + "=",
        make_token(KEY, LEASE, 1) + "\n",
        PREFIX + "ä" * 80,
        PREFIX + "A" * 10_000,
    ],
)
def test_other_text_is_no_token(text: str) -> None:
    """What has not the form of a token is told without a look at any key."""
    assert split_token(text) is None


def test_masked_text_shows_no_token() -> None:
    """Nothing of a token is left in a text, not of one that is cut off either; the rest stays."""
    token = make_token(secrets.token_bytes(32), LEASE, 1)

    assert mask_tokens(f"/v1/callbacks/{token}/complete/") == "/v1/callbacks/hcb_***/complete/"
    assert mask_tokens(f"/{token[:40]}") == "/hcb_***"
    assert mask_tokens("/v1/tasks") == "/v1/tasks"
