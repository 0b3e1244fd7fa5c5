-- Make a queue, or change the settings that are given.
-- params: tenant_id; name; retry (JSON text or NULL: keep); timeout_s (or NULL: keep).
-- returns: the queue as it is now, and whether it was made.
-- locks: the queue's row.
INSERT INTO howdah.queues AS q (tenant_id, name, retry, timeout_s)
VALUES (
    %(tenant_id)b::integer, %(name)b::text, coalesce(%(retry)b::text::jsonb, '{}'),
    coalesce(%(timeout_s)b::real, 60)
)
ON CONFLICT (tenant_id, name) DO UPDATE
SET retry = coalesce(%(retry)b::text::jsonb, q.retry),
    timeout_s = coalesce(%(timeout_s)b::real, q.timeout_s),
    updated_at = howdah.now()
RETURNING q.id, q.name, q.retry, q.timeout_s, q.created_at, q.updated_at, q.xmax = 0 AS is_new
