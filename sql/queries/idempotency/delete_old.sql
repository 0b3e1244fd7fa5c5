-- Forget idempotency keys after 24 hours, a page at a time.
-- params: none.
-- returns: one row per deleted key; at most 10,000.
-- locks: the deleted rows, which no request looks for any more.
-- index: idempotency_keys_created_idx
DELETE FROM howdah.idempotency_keys AS i
WHERE (i.tenant_id, i.key) IN (
    SELECT o.tenant_id, o.key
    FROM howdah.idempotency_keys AS o
    WHERE o.created_at < howdah.now() - interval '24 hours'
    ORDER BY o.created_at
    LIMIT 10000
)
RETURNING i.tenant_id
