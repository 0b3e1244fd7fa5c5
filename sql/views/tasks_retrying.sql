-- Tasks that wait for another attempt, due or not.
CREATE OR REPLACE VIEW howdah.tasks_retrying AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.queued_at,
    r.attempt,
    r.crashes,
    r.run_at,
    round(extract(epoch FROM r.run_at - howdah.now()), 3) AS due_in_s,
    r.expires_at
FROM howdah.runs AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id
WHERE r.lease_token IS NULL AND r.blocked_by = 0 AND r.attempt > 0;

COMMENT ON VIEW howdah.tasks_retrying IS 'Tasks that wait for another attempt, due or not. Reads all of runs unless filtered by queue or task_id. What went wrong stands in recent_failures.';
COMMENT ON COLUMN howdah.tasks_retrying.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_retrying.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_retrying.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_retrying.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_retrying.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_retrying.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_retrying.attempt IS 'Attempts spent so far.';
COMMENT ON COLUMN howdah.tasks_retrying.crashes IS 'Leases among them that ran out with their worker.';
COMMENT ON COLUMN howdah.tasks_retrying.run_at IS 'Claimable from this time on.';
COMMENT ON COLUMN howdah.tasks_retrying.due_in_s IS 'Seconds until then; negative if it is due.';
COMMENT ON COLUMN howdah.tasks_retrying.expires_at IS 'It ends as expired then unless it has started; NULL: never.';
