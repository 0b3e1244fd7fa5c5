-- Store tasks of one tenant; see howdah.enqueue_rows.
-- params: tenant_id; items (JSON array); payloads (JSON texts or NULL, in the same order).
-- returns: one row per item: ordinal, id, created, error, queue_id, priority, run_at; due_at, created_at, timeout_s,
--   max_attempts, expires_at of those created.
-- moves: new -> waiting (enqueue)
SELECT
    e.ordinal, e.id, e.created, e.error, e.queue_id, e.priority, e.run_at, e.due_at, e.created_at, e.timeout_s, e.max_attempts,
    e.expires_at
FROM howdah.enqueue_rows(%(tenant_id)b::integer, %(items)b::text::json, %(payloads)b::text[]::json[]) AS e
