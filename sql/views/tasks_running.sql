-- Tasks that a worker holds; the view running has more to say about each.
-- BETWEEN says what IS NOT NULL says, but the planner takes it for few rows also before it has statistics.
-- OFFSET 0 keeps the probe together: pulled up, it became a walk over all runs of each tenant where statistics were
-- taken while nothing waited (1,000,000 buffers against 1).
CREATE OR REPLACE VIEW howdah.tasks_running AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.queued_at,
    r.attempt,
    r.claimed_at
FROM (
    SELECT
        l.tenant_id, l.task_id, l.queue_id, l.target_id, l.priority, l.queued_at, l.attempt, l.claimed_at
    FROM howdah.runs AS l
    WHERE l.lease_expires_at BETWEEN '-infinity' AND 'infinity' AND l.awaiting_at IS NULL
    OFFSET 0
) AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id;

COMMENT ON VIEW howdah.tasks_running IS 'Tasks that a worker holds now. Reads the leased rows only; the view running has worker, lease and deadline.';
COMMENT ON COLUMN howdah.tasks_running.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_running.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_running.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_running.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_running.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_running.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_running.attempt IS 'Number of this attempt.';
COMMENT ON COLUMN howdah.tasks_running.claimed_at IS 'When it was claimed.';
