-- Tasks whose receiver answered 202 and owes the outcome, and how long it may take.
-- BETWEEN says what IS NOT NULL says, but the planner takes it for few rows also before it has statistics.
-- OFFSET 0 keeps the probe together: pulled up, it became a walk over all runs of each tenant where statistics were
-- taken while nothing waited (1,000,000 buffers against 1).
CREATE OR REPLACE VIEW howdah.tasks_awaiting_callback AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.queued_at,
    r.attempt,
    r.claim_no,
    r.claimed_at,
    r.awaiting_at,
    round(extract(epoch FROM howdah.now() - r.awaiting_at), 3) AS awaiting_s,
    round(extract(epoch FROM r.lease_expires_at - howdah.now()), 3) AS silence_left_s,
    round(extract(epoch FROM r.deadline_at - howdah.now()), 3) AS deadline_left_s
FROM (
    SELECT
        l.tenant_id, l.task_id, l.queue_id, l.target_id, l.priority, l.queued_at, l.attempt, l.claim_no, l.claimed_at,
        l.awaiting_at, l.lease_expires_at, l.deadline_at
    FROM howdah.runs AS l
    WHERE l.lease_expires_at BETWEEN '-infinity' AND 'infinity' AND l.awaiting_at IS NOT NULL
    OFFSET 0
) AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id;

COMMENT ON VIEW howdah.tasks_awaiting_callback IS 'Tasks whose receiver answered 202 and owes the outcome. Reads the leased rows only.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.task_id IS 'The task.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.queued_at IS 'When the task was accepted.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.attempt IS 'Number of this attempt.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.claim_no IS 'Number of this claim; what the receiver got as Howdah-Fence.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.claimed_at IS 'When a worker claimed it.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.awaiting_at IS 'When the receiver''s 202 was recorded.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.awaiting_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.silence_left_s IS 'Seconds until the attempt is ended unless the receiver calls; negative if it should have ended.';
COMMENT ON COLUMN howdah.tasks_awaiting_callback.deadline_left_s IS 'Seconds until the attempt is ended whatever heartbeats the receiver sends.';
