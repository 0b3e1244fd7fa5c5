-- The run at the head of each lane: the next one to be claimed, found by one probe of runs_ready_idx for
-- each queue and priority. (Skipping from lane to lane would need no probes for empty ones, but with
-- statistics taken while nothing waited the planner sorted all of runs for each step.)
CREATE OR REPLACE VIEW howdah.oldest_waiting AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    howdah.run_state(r.lease_token, r.blocked_by, r.attempt, r.run_at, howdah.now()) AS state,
    r.attempt,
    r.queued_at,
    greatest(r.due_at, r.queued_at) AS ready_at,
    round(extract(epoch FROM howdah.now() - greatest(r.due_at, r.queued_at)), 3) AS age_s
FROM howdah.queues AS q
CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
CROSS JOIN LATERAL (
    SELECT
        w.tenant_id, w.task_id, w.target_id, w.priority, w.lease_token, w.blocked_by, w.attempt, w.run_at, w.due_at,
        w.queued_at
    FROM howdah.runs AS w
    WHERE w.queue_id = q.id AND w.priority = p.priority AND w.lease_token IS NULL
    ORDER BY w.run_at, w.task_id
    LIMIT 1
) AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.targets AS g ON g.id = r.target_id;

COMMENT ON VIEW howdah.oldest_waiting IS 'The run at the head of each lane, that is the next one to be claimed. One index probe per queue and priority: fast at any depth.';
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
