-- One queue of a tenant with its state and settings.
-- params: tenant_id; name.
-- returns: the queue, or no row; paused_until is NULL for a pause without end.
-- index: queues_tenant_id_name_key
SELECT
    q.id, q.name, howdah.queue_state(q.paused_until, q.draining_at, howdah.now()) AS state, q.retry, q.timeout_s,
    q.keep_history, q.max_depth, q.max_age_s, q.max_running, q.rate_limit, q.rate_period_s, q.rate_burst,
    CASE WHEN q.pressure_until > howdah.now() THEN q.pressure END AS pressure,
    nullif(q.paused_until, 'infinity') AS paused_until, q.pause_reason, q.paused_by, q.paused_at, q.draining_at, q.draining_by,
    q.created_at, q.updated_at
FROM howdah.queues AS q
WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(name)b::text AND q.deleted_at IS NULL
