-- What each queue does for its clients, since when and by whose word, and what its settings are.
CREATE OR REPLACE VIEW howdah.queue_states AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    howdah.queue_state(q.paused_until, q.draining_at, howdah.now()) AS state,
    pause.until AS paused_until,
    pause.at AS paused_at,
    pause.by AS paused_by,
    pause.reason AS pause_reason,
    q.draining_at,
    q.draining_by,
    CASE WHEN q.pressure_until > howdah.now() THEN q.pressure END AS pressure,
    q.max_depth,
    q.max_age_s,
    q.max_running,
    q.rate_limit,
    q.rate_period_s,
    q.rate_burst,
    q.keep_history,
    q.timeout_s,
    q.created_at,
    q.updated_at
FROM howdah.queues AS q
JOIN howdah.tenants AS t ON t.id = q.tenant_id
LEFT JOIN LATERAL (
    SELECT nullif(q.paused_until, 'infinity') AS until, q.paused_at AS at, q.paused_by AS by, q.pause_reason AS reason
    WHERE q.paused_until > howdah.now()
) AS pause ON true
WHERE q.deleted_at IS NULL;

COMMENT ON VIEW howdah.queue_states IS 'Queues: whether they are paused or drained, since when, by whom and why; their caps and other settings. Reads queues.';
COMMENT ON COLUMN howdah.queue_states.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.queue_states.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.queue_states.state IS 'active, paused (nothing is claimed) or draining (no new tasks are taken); one that is paused may be draining too, see draining_at.';
COMMENT ON COLUMN howdah.queue_states.paused_until IS 'When the pause ends by itself; NULL if it does not, or there is none.';
COMMENT ON COLUMN howdah.queue_states.paused_at IS 'Since when it is paused; NULL if it is not.';
COMMENT ON COLUMN howdah.queue_states.paused_by IS 'Who paused it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queue_states.pause_reason IS 'Why, in their words.';
COMMENT ON COLUMN howdah.queue_states.draining_at IS 'Since when it takes no new tasks; NULL if it does.';
COMMENT ON COLUMN howdah.queue_states.draining_by IS 'Who drains it: the id of an API key, or a database role.';
COMMENT ON COLUMN howdah.queue_states.pressure IS 'The cap for which it refuses tasks now: depth or age; NULL if it does not.';
COMMENT ON COLUMN howdah.queue_states.max_depth IS 'Waiting tasks from which on it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queue_states.max_age_s IS 'Seconds that its oldest due task may wait before it takes no more; NULL no cap.';
COMMENT ON COLUMN howdah.queue_states.max_running IS 'At most so many of its runs go on at once; NULL: any number.';
COMMENT ON COLUMN howdah.queue_states.rate_limit IS 'At most so many of its runs start in rate_period_s, beside the burst; NULL: any number.';
COMMENT ON COLUMN howdah.queue_states.rate_period_s IS 'Seconds of the period of rate_limit.';
COMMENT ON COLUMN howdah.queue_states.rate_burst IS 'Runs that may start at once after a rest.';
COMMENT ON COLUMN howdah.queue_states.keep_history IS 'What finished_runs gets of its runs: all, failures or none.';
COMMENT ON COLUMN howdah.queue_states.timeout_s IS 'Seconds an attempt may take, for tasks that bring no timeout.';
COMMENT ON COLUMN howdah.queue_states.created_at IS 'When the queue was made.';
COMMENT ON COLUMN howdah.queue_states.updated_at IS 'When its settings last changed.';
