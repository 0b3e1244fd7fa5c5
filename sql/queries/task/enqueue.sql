-- Store tasks of one tenant; see howdah.enqueue_rows.
-- params: tenant_id; items (JSON array); payloads (JSON texts or NULL, in the same order).
-- returns: one row per item: ordinal, id, created, error, queue_id, priority, run_at.
-- moves: new -> waiting (enqueue)
SELECT e.ordinal, e.id, e.created, e.error, e.queue_id, e.priority, e.run_at
FROM howdah.enqueue_rows(%(tenant_id)b::integer, %(items)b::text::json, %(payloads)b::text[]::json[]) AS e
