"""Who asks, and what they may do.

A request carries `Authorization: Bearer hwd_<id>_<secret>`. Keys are kept for
`CACHE_S`, so a revoked one works no longer than that; ids that do not exist are
kept likewise and compared with a hash that nothing has, so that neither time nor
answer tells an unknown id from a wrong secret.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from howdah.api.problems import Problem
from howdah.core.credentials import hash_secret, split_key
from howdah.core.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from howdah.api.database import Database
    from howdah.core.store.api_keys import ApiKey, ApiKeys

Scope: TypeAlias = Literal["viewer", "producer", "worker", "operator", "admin"]

# Revoking a key must bite within 5 s of its answer; one second is for a slow lookup.
CACHE_S: Final = 4.0
# Ids that do not exist are made up by strangers; keeping more of them would be their choice of our memory.
CACHE_KEYS_MAX: Final = 10_000
TOUCH_EVERY_S: Final = 60.0

# What each role of a key includes. Reading payloads is a scope of its own.
INCLUDED: Final[dict[str, frozenset[str]]] = {
    "viewer": frozenset({"viewer"}),
    "producer": frozenset({"producer"}),
    "worker": frozenset({"worker"}),
    "operator": frozenset({"operator", "viewer", "producer"}),
    "admin": frozenset({"admin", "operator", "viewer", "producer", "worker", "payloads"}),
    "payloads": frozenset({"payloads"}),
}

# No secret has this hash.
_NO_HASH: Final = bytes(32)

_log: Final = logging.getLogger(__name__)


class Credential(NamedTuple):
    """The key that a request came with, after it was found valid."""

    id: str
    tenant_id: int
    tenant: str
    scopes: frozenset[str]
    """What it may do, with all that its roles include."""
    cursor_secret: bytes
    reads_payloads: bool


class _Entry(NamedTuple):
    credential: Credential | None
    secret_hash: bytes
    until: float


def refuse_without(credential: Credential, scope: Scope, what: str = "This") -> None:
    """Refuse what a key may not do.

    Raises:
        Problem: It lacks the scope.
    """
    if scope not in credential.scopes:
        raise Problem("forbidden", f"{what} needs a key with the scope {scope}.")


def unauthorized() -> Problem:
    """Return the one answer to a missing, malformed, unknown, wrong, revoked or expired key."""
    return Problem("unauthorized", "Send a valid API key as 'Authorization: Bearer hwd_…'.")


class Keys:
    """Checks credentials, and records their use."""

    def __init__(self, database: Database, store: ApiKeys) -> None:
        """Look keys up in `store`."""
        self._database = database
        self._store = store
        self._entries: dict[str, _Entry] = {}
        self._lookups: dict[str, asyncio.Task[_Entry]] = {}
        self._used: set[str] = set()

    async def check(self, headers: dict[bytes, bytes]) -> Credential:
        """Return the credential that a request carries.

        Raises:
            Problem: It carries none that is valid.
            DatabaseUnavailable: The key is not known here, and PostgreSQL is away.
        """
        scheme, _, text = headers.get(b"authorization", b"").partition(b" ")
        parts = split_key(text) if scheme.lower() == b"bearer" else None
        if parts is None:
            raise unauthorized()
        key_id, secret = parts
        entry = self._entries.get(key_id)
        if entry is None or entry.until < time.monotonic():
            entry = await self._find(key_id)
        is_right = hmac.compare_digest(hash_secret(secret), entry.secret_hash)
        if entry.credential is None or not is_right:
            raise unauthorized()
        self._used.add(key_id)
        return entry.credential

    async def run(self) -> None:
        """Record once a minute which keys were used, until cancelled."""
        while True:
            await asyncio.sleep(TOUCH_EVERY_S)
            await self.touch()

    async def touch(self) -> None:
        """Record now which keys were used since the last time; never raises for an outage."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            async with self._database.connection() as conn:
                await self._store.touch(conn, used)
        except DatabaseUnavailable as reason:
            self._used |= used
            _log.info("keys_not_touched", extra={"fields": {"reason": str(reason)}})

    async def _find(self, key_id: str) -> _Entry:
        """Look a key up; requests that come with the same one meanwhile wait for the same lookup."""
        lookup = self._lookups.get(key_id)
        if lookup is None:
            lookup = self._lookups[key_id] = asyncio.create_task(self._look_up(key_id))
            lookup.add_done_callback(lambda _: self._lookups.pop(key_id, None))
        # A client that hangs up must not end the lookup that others wait for.
        return await asyncio.shield(lookup)

    async def _look_up(self, key_id: str) -> _Entry:
        began = time.monotonic()
        async with self._database.connection() as conn:
            key = await self._store.get(conn, key_id)
        entry = _entry(key, began + CACHE_S)
        if len(self._entries) >= CACHE_KEYS_MAX:
            self._entries.clear()
        self._entries[key_id] = entry
        return entry


def _entry(key: ApiKey | None, until: float) -> _Entry:
    if key is None or key.is_dead:
        return _Entry(None, _NO_HASH, until)
    scopes = frozenset().union(*(INCLUDED[scope] for scope in key.scopes))
    credential = Credential(key.id, key.tenant_id, key.tenant, scopes, key.cursor_secret, "payloads" in scopes)
    return _Entry(credential, bytes(key.secret_hash), until)
