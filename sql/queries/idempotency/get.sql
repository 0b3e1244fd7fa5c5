-- The stored answer of an idempotency key.
-- params: tenant_id; key.
-- returns: request_hash, status, location, answer; or no row.
-- index: idempotency_keys_pkey
SELECT i.request_hash, i.status, i.location, i.answer
FROM howdah.idempotency_keys AS i
WHERE i.tenant_id = %(tenant_id)b::integer AND i.key = %(key)b::text
