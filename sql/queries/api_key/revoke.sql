-- Refuse a credential from now on.
-- params: id.
-- returns: one row: id, revoked_at; none if there is no such key.
-- locks: the key's row.
UPDATE howdah.api_keys AS k
SET revoked_at = coalesce(k.revoked_at, howdah.now())
WHERE k.id = %(id)b::text
RETURNING k.id, k.revoked_at
