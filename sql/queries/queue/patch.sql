-- Change the settings of a queue that are given.
-- params: tenant_id; name; retry (JSON text), timeout_s, keep_history (NULL: keep); sets_depth, sets_age: whether
--   max_depth and max_age_s are given (NULL: no cap); sets_running, sets_rate: likewise max_running and rate (JSON text).
-- returns: the queue as it is now, as queue/get returns it, or no row if there is none.
-- locks: the queue's row.
-- index: queues_tenant_id_name_key
UPDATE howdah.queues AS q
SET retry = coalesce(%(retry)b::text::jsonb, q.retry),
    timeout_s = coalesce(%(timeout_s)b::real, q.timeout_s),
    keep_history = coalesce(%(keep_history)b::text, q.keep_history),
    max_depth = CASE WHEN %(sets_depth)b::boolean THEN %(max_depth)b::integer ELSE q.max_depth END,
    max_age_s = CASE WHEN %(sets_age)b::boolean THEN %(max_age_s)b::double precision ELSE q.max_age_s END,
    max_running = CASE WHEN %(sets_running)b::boolean THEN %(max_running)b::integer ELSE q.max_running END,
    rate_limit = CASE WHEN %(sets_rate)b::boolean THEN r.rate_limit ELSE q.rate_limit END,
    rate_period_s = CASE WHEN %(sets_rate)b::boolean THEN r.rate_period_s ELSE q.rate_period_s END,
    rate_burst = CASE WHEN %(sets_rate)b::boolean THEN r.rate_burst ELSE q.rate_burst END,
    gate_at = CASE WHEN %(sets_rate)b::boolean THEN NULL ELSE q.gate_at END,
    updated_at = howdah.now()
FROM howdah.read_rate(%(rate)b::text::jsonb) AS r
WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(name)b::text AND q.deleted_at IS NULL
RETURNING
    q.id, q.name, howdah.queue_state(q.paused_until, q.draining_at, howdah.now()) AS state, q.retry, q.timeout_s,
    q.keep_history, q.max_depth, q.max_age_s, q.max_running, q.rate_limit, q.rate_period_s, q.rate_burst,
    CASE WHEN q.pressure_until > howdah.now() THEN q.pressure END AS pressure,
    nullif(q.paused_until, 'infinity') AS paused_until, q.pause_reason, q.paused_by, q.paused_at, q.draining_at, q.draining_by,
    q.created_at, q.updated_at
