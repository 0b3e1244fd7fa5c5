-- Tasks that are due for their first attempt and wait for a worker.
CREATE OR REPLACE VIEW howdah.tasks_queued AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.queued_at,
    greatest(r.due_at, r.queued_at) AS ready_at,
    round(extract(epoch FROM howdah.now() - greatest(r.due_at, r.queued_at)), 3) AS age_s,
    r.expires_at
FROM howdah.runs AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id
WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt = 0 AND r.run_at <= howdah.now();

COMMENT ON VIEW howdah.tasks_queued IS 'Tasks that are due for their first attempt and wait for a worker. Reads all of runs unless filtered by queue or task_id; oldest_waiting is cheaper if the heads of the lanes are enough.';
COMMENT ON COLUMN howdah.tasks_queued.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_queued.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_queued.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_queued.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_queued.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_queued.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_queued.ready_at IS 'Since when it could be claimed.';
COMMENT ON COLUMN howdah.tasks_queued.age_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.tasks_queued.expires_at IS 'It ends as expired then unless it has started; NULL: never.';
