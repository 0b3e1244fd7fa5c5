"""Tenants and API keys, as the command line makes and revokes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from howdah.core.credentials import ID_LENGTH, hash_secret, make_key, split_key
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.errors import Refused
from howdah.core.store.api_keys import ApiKeys
from howdah.core.store.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.settings import Settings

PROCESS: Final = "admin"

KEY_NAME_LENGTH_MAX: Final = 128

_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")


async def create_key(settings: Settings, *, name: str, tenant: str, scopes: Sequence[str]) -> str:
    """Make an API key and return its text, which is stored nowhere.

    Args:
        settings: Tell where the database is.
        name: What people call the key: 1 to `KEY_NAME_LENGTH_MAX` printable characters.
        tenant: Name of the tenant that its requests act for.
        scopes: What it may do.

    Raises:
        Refused: The name is not allowed, or there is no such tenant.
        DatabaseUnavailable: There is no connection.
    """
    # Without a name nobody can tell later whose the key is; with odd characters it would garble a terminal or a log.
    if not (name.strip() and name.isprintable() and len(name) <= KEY_NAME_LENGTH_MAX):
        allowed = f"1 to {KEY_NAME_LENGTH_MAX} printable characters, and not blanks alone"
        raise Refused("validation", "", f"a key's name must have {allowed}")
    key = make_key()
    async with await connect(settings, PROCESS, purpose="direct") as conn:
        with translated():
            is_made = await ApiKeys(settings.schema).create(
                conn, key_id=key.id, tenant=tenant, secret_hash=key.secret_hash, name=name, scopes=scopes
            )
    if not is_made:
        raise Refused("not_found", "", f"there is no tenant {tenant!r}; howdah tenant create makes one")
    return key.text


async def revoke_key(settings: Settings, key: str) -> str:
    """Refuse an API key from now on, and return its id.

    Args:
        settings: Tell where the database is.
        key: The key itself, or its id.

    Raises:
        Refused: There is no such key.
        DatabaseUnavailable: There is no connection.
    """
    parts = split_key(key.encode())
    key_id = parts[0] if parts is not None else key
    async with await connect(settings, PROCESS, purpose="direct") as conn:
        with translated():
            is_known = await ApiKeys(settings.schema).revoke(conn, key_id)
    if not is_known:
        shown = key_id if len(key_id) == ID_LENGTH else f"an id has {ID_LENGTH} characters"
        raise Refused("not_found", "", f"there is no such key ({shown})")
    return key_id


async def create_tenant(settings: Settings, name: str) -> bool:
    """Make a tenant; return whether it is new.

    Raises:
        Refused: The name is not allowed.
        DatabaseUnavailable: There is no connection.
    """
    if _TENANT.fullmatch(name) is None:
        raise Refused("validation", "", f"a tenant's name must match {_TENANT.pattern}")
    async with await connect(settings, PROCESS, purpose="direct") as conn:
        with translated():
            return (await Tenants(settings.schema).create(conn, name))[1]


async def keep_key(settings: Settings, key: str, *, name: str, scopes: Sequence[str]) -> bool:
    """Make sure that a key which its owner keeps is known, with the default tenant.

    A key that was drawn and kept, but not stored because of a crash, or whose
    database was made anew, is stored now.

    Returns:
        Whether it works; False if it was revoked, has expired, or is malformed.

    Raises:
        DatabaseUnavailable: There is no connection.
    """
    parts = split_key(key.encode())
    if parts is None:
        return False
    key_id, secret = parts
    keys = ApiKeys(settings.schema)
    async with await connect(settings, PROCESS, purpose="direct") as conn:
        with translated():
            known = await keys.get(conn, key_id)
            if known is not None:
                return not known.is_dead and known.secret_hash == hash_secret(secret)
            return await keys.create(
                conn, key_id=key_id, tenant="default", secret_hash=hash_secret(secret), name=name, scopes=scopes
            )
