"""API keys as text: `hwd_<id>_<secret>`.

The id is public and finds the row; of the secret only a hash is stored. A plain
SHA-256 is enough, since the secret is random and long: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from typing import Final, NamedTuple

ID_LENGTH: Final = 12
# 32 characters out of 62 are 190 bits.
SECRET_LENGTH: Final = 32
# What a key may be for.
SCOPES: Final = ("viewer", "producer", "worker", "operator", "admin", "payloads")

_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits
_KEY: Final = re.compile(rf"hwd_([a-z0-9]{{{ID_LENGTH}}})_([A-Za-z0-9]{{{SECRET_LENGTH}}})".encode())


class NewKey(NamedTuple):
    """A key that was just drawn. `text` is shown to its owner once and never stored."""

    id: str
    text: str
    secret_hash: bytes


def make_key() -> NewKey:
    """Draw a new API key."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(SECRET_LENGTH))
    return NewKey(key_id, f"hwd_{key_id}_{secret}", hash_secret(secret.encode()))


def split_key(text: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret of a key, or None if the text is no key."""
    match = _KEY.fullmatch(text)
    return None if match is None else (match[1].decode(), match[2])


def hash_secret(secret: bytes) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret).digest()
