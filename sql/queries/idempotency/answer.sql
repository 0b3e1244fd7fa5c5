-- Store the answer of an idempotency key, in the transaction that took it.
-- params: tenant_id; key; status; location (or NULL); answer.
-- returns: the key.
-- locks: the key.
UPDATE howdah.idempotency_keys AS i
SET status = %(status)b::smallint, location = %(location)b::text, answer = %(answer)b::text
WHERE i.tenant_id = %(tenant_id)b::integer AND i.key = %(key)b::text
RETURNING i.key
