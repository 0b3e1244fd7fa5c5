-- Change the settings of a queue that are given.
-- params: tenant_id; name; retry (JSON text or NULL: keep); timeout_s (or NULL: keep).
-- returns: the queue as it is now, or no row if there is none.
-- locks: the queue's row.
-- index: queues_tenant_id_name_key
UPDATE howdah.queues AS q
SET retry = coalesce(%(retry)b::text::jsonb, q.retry),
    timeout_s = coalesce(%(timeout_s)b::real, q.timeout_s),
    updated_at = howdah.now()
WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(name)b::text
RETURNING q.id, q.name, q.retry, q.timeout_s, q.created_at, q.updated_at
