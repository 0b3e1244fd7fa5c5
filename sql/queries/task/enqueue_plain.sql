-- Store plain tasks of one tenant, or nothing; see howdah.store_plain.
-- params: tenant_id; queues, handlers, priorities, traceparents: one element for each kind of task;
--   kinds (counted from 1), ids, payloads (JSON texts or NULL): one element for each task.
-- returns: one row per kind, in their order: kind, queue_id, created_at, timeout_s, max_attempts; none if nothing
--   was stored.
-- moves: new -> waiting (enqueue)
SELECT s.kind, s.queue_id, s.created_at, s.timeout_s, s.max_attempts
FROM howdah.store_plain(
    %(tenant_id)b::integer, %(queues)b::text[], %(handlers)b::text[], %(priorities)b::smallint[], %(traceparents)b::text[],
    %(kinds)b::integer[], %(ids)b::uuid[], %(payloads)b::text[]::json[]
) AS s
