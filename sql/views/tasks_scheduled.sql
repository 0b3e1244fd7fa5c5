-- Tasks whose first attempt lies ahead.
CREATE OR REPLACE VIEW howdah.tasks_scheduled AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.queued_at,
    r.run_at,
    round(extract(epoch FROM r.run_at - howdah.now()), 3) AS due_in_s,
    r.expires_at
FROM howdah.runs AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id
WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt = 0 AND r.run_at > howdah.now();

COMMENT ON VIEW howdah.tasks_scheduled IS 'Tasks whose first attempt lies ahead. Reads all of runs unless filtered by queue or task_id.';
COMMENT ON COLUMN howdah.tasks_scheduled.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_scheduled.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_scheduled.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_scheduled.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_scheduled.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_scheduled.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_scheduled.run_at IS 'Claimable from this time on.';
COMMENT ON COLUMN howdah.tasks_scheduled.due_in_s IS 'Seconds until then.';
COMMENT ON COLUMN howdah.tasks_scheduled.expires_at IS 'It ends as expired then unless it has started; NULL: never.';
