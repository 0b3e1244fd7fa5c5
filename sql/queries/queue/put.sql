-- Make a queue, or replace its settings.
-- params: tenant_id; name; retry (JSON text); timeout_s; keep_history; max_depth, max_age_s (NULL: no cap);
--   max_running, rate (JSON text; NULL: no limit).
-- returns: the queue as it is now, as queue/get returns it, and whether it was made.
-- locks: the queue's row.
-- One that was deleted is made anew. Pause and drain are no settings, and stay as they are.
INSERT INTO howdah.queues AS q (
    tenant_id, name, retry, timeout_s, keep_history, max_depth, max_age_s, max_running, rate_limit, rate_period_s, rate_burst
)
SELECT
    %(tenant_id)b::integer, %(name)b::text, %(retry)b::text::jsonb, %(timeout_s)b::real, %(keep_history)b::text,
    %(max_depth)b::integer, %(max_age_s)b::double precision, %(max_running)b::integer, r.rate_limit, r.rate_period_s, r.rate_burst
FROM howdah.read_rate(%(rate)b::text::jsonb) AS r
ON CONFLICT (tenant_id, name) DO UPDATE
SET retry = excluded.retry,
    timeout_s = excluded.timeout_s,
    keep_history = excluded.keep_history,
    max_depth = excluded.max_depth,
    max_age_s = excluded.max_age_s,
    max_running = excluded.max_running,
    rate_limit = excluded.rate_limit,
    rate_period_s = excluded.rate_period_s,
    rate_burst = excluded.rate_burst,
    gate_at = NULL,
    updated_at = howdah.now(),
    created_at = CASE WHEN q.deleted_at IS NULL THEN q.created_at ELSE howdah.now() END,
    deleted_at = NULL
RETURNING
    q.id, q.name, howdah.queue_state(q.paused_until, q.draining_at, howdah.now()) AS state, q.retry, q.timeout_s,
    q.keep_history, q.max_depth, q.max_age_s, q.max_running, q.rate_limit, q.rate_period_s, q.rate_burst,
    CASE WHEN q.pressure_until > howdah.now() THEN q.pressure END AS pressure,
    nullif(q.paused_until, 'infinity') AS paused_until, q.pause_reason, q.paused_by, q.paused_at, q.draining_at, q.draining_by,
    q.created_at, q.updated_at,
    q.xmax = 0 OR q.created_at = howdah.now() AS is_new
