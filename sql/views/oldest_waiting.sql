-- The run at the head of each lane: the next one to be claimed. The lanes are found by skipping through
-- runs_ready_idx, one probe each, so the view is fast at any depth.
CREATE OR REPLACE VIEW howdah.oldest_waiting AS
WITH RECURSIVE head AS (
    (
        SELECT r.queue_id, r.priority, r.run_at, r.task_id
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL
        ORDER BY r.queue_id, r.priority, r.run_at, r.task_id
        LIMIT 1
    )
    UNION ALL
    SELECT step.queue_id, step.priority, step.run_at, step.task_id
    FROM head
    CROSS JOIN LATERAL (
        SELECT r.queue_id, r.priority, r.run_at, r.task_id
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL AND (r.queue_id, r.priority) > (head.queue_id, head.priority)
        ORDER BY r.queue_id, r.priority, r.run_at, r.task_id
        LIMIT 1
    ) AS step
)
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[head.priority + 1] AS priority,
    head.task_id,
    coalesce(g.handler, 'http') AS target,
    howdah.run_state(r.lease_token, r.blocked_by, r.attempt, r.run_at, howdah.now()) AS state,
    r.attempt,
    r.queued_at,
    greatest(r.due_at, r.queued_at) AS ready_at,
    round(extract(epoch FROM howdah.now() - greatest(r.due_at, r.queued_at)), 3) AS age_s
FROM head
JOIN howdah.queues AS q ON q.id = head.queue_id
JOIN howdah.tenants AS t ON t.id = q.tenant_id
JOIN howdah.runs AS r ON r.tenant_id = q.tenant_id AND r.task_id = head.task_id
JOIN howdah.targets AS g ON g.id = r.target_id;

COMMENT ON VIEW howdah.oldest_waiting IS 'The run at the head of each lane, that is the next one to be claimed. One index probe per lane: fast at any depth.';
COMMENT ON COLUMN howdah.oldest_waiting.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.oldest_waiting.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.oldest_waiting.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.oldest_waiting.task_id IS 'The task.';
COMMENT ON COLUMN howdah.oldest_waiting.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.oldest_waiting.state IS 'queued, scheduled, retrying or blocked.';
COMMENT ON COLUMN howdah.oldest_waiting.attempt IS 'Attempts spent so far.';
COMMENT ON COLUMN howdah.oldest_waiting.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.oldest_waiting.ready_at IS 'When it became, or becomes, claimable by time.';
COMMENT ON COLUMN howdah.oldest_waiting.age_s IS 'Seconds since then; negative while that lies ahead.';
