-- What does not move although it should. In a healthy installation this view is empty, apart from
-- expired leases and passed deadlines that are about to be dealt with (watch since_s).
--
-- lease_expired: the worker stopped renewing, and rescue (a chore of the scheduler, every second) has not
--   taken the run back yet.
-- past_deadline: the attempt's timeout is over, and its worker has not recorded that yet.
-- blocked_without_reason: parked although its target is not, or blocked by a bit that nothing clears.
-- not_claimed: the head of a lane has been due for five minutes although a live worker serves its queue
--   and its target. Either the workers are full (see running) or the lane outgrows them (queue_depth).
--
-- OFFSET 0 keeps the probe for blocked runs together; see tasks_blocked.
CREATE OR REPLACE VIEW howdah.stuck AS
WITH live AS MATERIALIZED (
    SELECT w.queues, w.handlers, w.serves_http
    FROM howdah.workers AS w
    WHERE w.stopped_at IS NULL
        AND w.stopping_at IS NULL
        AND w.heartbeat_at > howdah.now() - make_interval(secs => 3 * w.lease_s)
),
served AS MATERIALIZED (
    SELECT q.id AS queue_id, array_agg(g.id) AS target_ids
    FROM howdah.queues AS q
    JOIN howdah.targets AS g ON g.id = 0 OR g.tenant_id = q.tenant_id
    WHERE EXISTS (
        SELECT 1
        FROM live
        CROSS JOIN unnest(live.queues) AS p (pattern)
        WHERE q.name LIKE translate(replace(p.pattern, '_', '\_'), '*?', '%_')
            AND (g.id = 0 AND live.serves_http OR g.handler = ANY (live.handlers))
    )
    GROUP BY q.id
),
found AS (
    SELECT 'lease_expired' AS problem, r.tenant_id, r.task_id, r.lease_expires_at AS since_at
    FROM howdah.runs AS r
    WHERE r.lease_expires_at < howdah.now()
    UNION ALL
    SELECT 'past_deadline', r.tenant_id, r.task_id, r.deadline_at
    FROM howdah.runs AS r
    WHERE r.lease_token IS NOT NULL AND r.deadline_at < howdah.now() AND r.lease_expires_at >= howdah.now()
    UNION ALL
    SELECT 'blocked_without_reason', q.tenant_id, r.task_id, greatest(r.due_at, r.queued_at)
    FROM howdah.queues AS q
    CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT b.task_id, b.target_id, b.blocked_by, b.due_at, b.queued_at
        FROM howdah.runs AS b
        WHERE b.queue_id = q.id AND b.priority = p.priority AND b.lease_token IS NULL AND b.run_at = 'infinity'
        OFFSET 0
    ) AS r
    JOIN howdah.targets AS g ON g.id = r.target_id
    WHERE r.blocked_by <> 8 OR NOT g.is_parked
    UNION ALL
    SELECT 'not_claimed', head.tenant_id, head.task_id, head.ready_at
    FROM served AS s
    CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT r.tenant_id, r.task_id, greatest(r.due_at, r.queued_at) AS ready_at
        FROM howdah.runs AS r
        WHERE r.queue_id = s.queue_id
            AND r.priority = p.priority
            AND r.lease_token IS NULL
            AND r.run_at <= howdah.now() - interval '5 minutes'
            AND r.target_id = ANY (s.target_ids)
        ORDER BY r.run_at, r.task_id
        LIMIT 1
    ) AS head
)
SELECT
    f.problem,
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[r.priority + 1] AS priority,
    f.task_id,
    coalesce(g.handler, 'http') AS target,
    r.attempt,
    w.name AS worker,
    f.since_at,
    round(extract(epoch FROM howdah.now() - f.since_at), 3) AS since_s
FROM found AS f
JOIN howdah.runs AS r ON r.tenant_id = f.tenant_id AND r.task_id = f.task_id
JOIN howdah.tenants AS t ON t.id = r.tenant_id
JOIN howdah.queues AS q ON q.id = r.queue_id
JOIN howdah.targets AS g ON g.id = r.target_id
LEFT JOIN howdah.workers AS w ON w.id = r.worker_id;

COMMENT ON VIEW howdah.stuck IS 'Runs that do not move although they should, and why. Of lanes that are not claimed only the head is shown. Reads leased and blocked rows and the heads of lanes.';
COMMENT ON COLUMN howdah.stuck.problem IS 'lease_expired, past_deadline, blocked_without_reason or not_claimed (due for five minutes although a live worker serves it).';
COMMENT ON COLUMN howdah.stuck.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.stuck.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.stuck.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.stuck.task_id IS 'The task.';
COMMENT ON COLUMN howdah.stuck.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.stuck.attempt IS 'Attempts spent, the current one included.';
COMMENT ON COLUMN howdah.stuck.worker IS 'Name of the worker that holds it; NULL while it waits.';
COMMENT ON COLUMN howdah.stuck.since_at IS 'When the lease or the deadline passed, or since when it could have been claimed.';
COMMENT ON COLUMN howdah.stuck.since_s IS 'Seconds since then. Below 5 for lease_expired and past_deadline is normal.';
