"""Tokens by which a receiver reports the outcome of a run that it accepted with 202.

A token names one lease, and is its own credential: `hcb_` and the base64 (of RFC 4648
section 5) of tenant, queue, task and lease token, followed by 160 bits of HMAC-SHA256 over
them under the tenant's `callback_key`. So nothing has to be stored to recognise one,
its run is found by its primary key, and whoever sees the rows of `runs` can make none:
that takes the key as well, which no view, no receiver and no answer of the API has.
With the next attempt the lease's token is another, and this one is worth nothing.
"""

from __future__ import annotations

import base64
import hmac
import re
import struct
from typing import Final, NamedTuple

from howdah.core.model import LeaseKey

PREFIX: Final = "hcb_"
LENGTH: Final = len(PREFIX) + 80

_TOKEN: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{80}})", re.ASCII)
# Anything that may be one, or a part of one, in a text that is to be logged.
_SHAPED: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]*", re.ASCII)
_NAMED: Final = struct.Struct(">ii16s16s")
_MAC_BYTES: Final = 20
# What is signed begins with what it is for, so that a signature made under this key for another purpose is no token.
_PURPOSE: Final = b"howdah callback token 1\0"


class CallbackToken(NamedTuple):
    """A token taken apart. It proves nothing until `is_genuine` has said so.

    Attributes:
        tenant_id: Whose key signs it.
        queue_id: Of the task; for statistics.
        task_id: 16 bytes.
        lease_token: 16 bytes.
        mac: As received.
    """

    tenant_id: int
    queue_id: int
    task_id: bytes
    lease_token: bytes
    mac: bytes

    @property
    def lease(self) -> LeaseKey:
        """The lease that it names."""
        return LeaseKey(self.tenant_id, self.task_id, self.lease_token)

    def is_genuine(self, key: bytes) -> bool:
        """Tell, in constant time, whether it was signed with this key."""
        named = _NAMED.pack(self.tenant_id, self.queue_id, self.task_id, self.lease_token)
        return hmac.compare_digest(_mac(key, named), self.mac)


def make_token(key: bytes, lease: LeaseKey, queue_id: int) -> str:
    """Return the token of a lease.

    Args:
        key: The tenant's `callback_key`.
        lease: What it is good for.
        queue_id: Of the task.
    """
    named = _NAMED.pack(lease.tenant_id, queue_id, lease.task_id, lease.token)
    return PREFIX + base64.urlsafe_b64encode(named + _mac(key, named)).decode()


def split_token(text: str) -> CallbackToken | None:
    """Take a token apart, or return None for a text that cannot be one."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    packed = base64.urlsafe_b64decode(match[1])
    tenant_id, queue_id, task_id, lease_token = _NAMED.unpack(packed[:-_MAC_BYTES])
    return CallbackToken(tenant_id, queue_id, task_id, lease_token, packed[-_MAC_BYTES:])


def mask_tokens(text: str) -> str:
    """Return a text, such as a path, without the tokens in it."""
    return _SHAPED.sub(f"{PREFIX}***", text)


def _mac(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + named, "sha256")[:_MAC_BYTES]
