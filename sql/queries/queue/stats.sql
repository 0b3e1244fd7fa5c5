-- What a queue holds now, and what it got done, as the view queue_live says it.
-- params: tenant: its owner's name; queue.
-- returns: one row, or none if there is no such queue.
-- index: queues_tenant_id_name_key, runs_ready_idx, runs_lease_idx, dead_letters_queue_idx, queue_stats_pkey
SELECT
    l.queued, l.scheduled, l.retrying, l.blocked, l.running, l.awaiting_callback, l.dead_letters,
    l.queued_is_at_least, l.scheduled_is_at_least, l.retrying_is_at_least, l.blocked_is_at_least, l.running_is_at_least,
    l.awaiting_callback_is_at_least, l.dead_letters_is_at_least, l.oldest_age_s::double precision AS oldest_age_s,
    l.enqueued_1m, l.succeeded_1m, l.failed_1m, l.retried_1m, l.duration_1m_s,
    l.enqueued_5m, l.succeeded_5m, l.failed_5m, l.retried_5m, l.duration_5m_s,
    l.enqueued_60m, l.succeeded_60m, l.failed_60m, l.retried_60m, l.duration_60m_s
FROM howdah.queue_live AS l
WHERE l.tenant = %(tenant)b::text AND l.queue = %(queue)b::text
