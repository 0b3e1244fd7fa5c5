-- Take an idempotency key for the transaction that makes its answer; waits for another transaction that
-- has it, up to lock_timeout.
-- params: tenant_id; key; request_hash.
-- returns: one row if the key was free, none if it has an answer already.
-- locks: the key.
INSERT INTO howdah.idempotency_keys (tenant_id, key, request_hash, created_at)
VALUES (%(tenant_id)b::integer, %(key)b::text, %(request_hash)b::bytea, howdah.now())
ON CONFLICT DO NOTHING
RETURNING key
