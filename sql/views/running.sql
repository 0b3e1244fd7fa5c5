-- What is executed now, by whom, and how long its lease and its deadline still allow.
-- BETWEEN says what IS NOT NULL says, but the planner takes it for few rows also before it has statistics.
-- OFFSET 0 keeps the probe together: pulled up, it became a walk over all runs of each tenant where statistics were
-- taken while nothing waited (1,000,000 buffers against 1).
CREATE OR REPLACE VIEW howdah.running AS
SELECT
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    r.task_id,
    coalesce(g.handler, 'http') AS target,
    r.attempt,
    r.claim_no,
    w.name AS worker,
    r.claimed_at,
    round(extract(epoch FROM howdah.now() - r.claimed_at), 3) AS running_s,
    round(extract(epoch FROM r.lease_expires_at - howdah.now()), 3) AS lease_left_s,
    round(extract(epoch FROM r.deadline_at - howdah.now()), 3) AS deadline_left_s,
    r.cancel_mode
FROM (
    SELECT
        l.tenant_id, l.task_id, l.queue_id, l.target_id, l.priority, l.attempt, l.claim_no, l.worker_id, l.claimed_at,
        l.lease_expires_at, l.deadline_at, l.cancel_mode
    FROM howdah.runs AS l
    WHERE l.lease_expires_at BETWEEN '-infinity' AND 'infinity' AND l.awaiting_at IS NULL
    OFFSET 0
) AS r
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id
LEFT JOIN howdah.workers AS w ON w.id = r.worker_id;

COMMENT ON VIEW howdah.running IS 'Runs that workers hold now. Reads the leased rows only.';
COMMENT ON COLUMN howdah.running.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.running.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.running.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.running.task_id IS 'The task.';
COMMENT ON COLUMN howdah.running.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.running.attempt IS 'Number of this attempt.';
COMMENT ON COLUMN howdah.running.claim_no IS 'Number of this claim; what the target gets as Howdah-Fence.';
COMMENT ON COLUMN howdah.running.worker IS 'Name of the worker; NULL if its row is gone.';
COMMENT ON COLUMN howdah.running.claimed_at IS 'When it was claimed.';
COMMENT ON COLUMN howdah.running.running_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.running.lease_left_s IS 'Seconds until the lease ends unless it is renewed; negative if it ran out.';
COMMENT ON COLUMN howdah.running.deadline_left_s IS 'Seconds until the attempt times out; negative if it should have ended.';
COMMENT ON COLUMN howdah.running.cancel_mode IS 'soft or hard if a cancel was asked for.';
