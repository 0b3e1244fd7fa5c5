-- What does not move although it should. In a healthy installation this view is empty, apart from
-- expired leases and passed deadlines and expiries that are about to be dealt with (watch since_s).
--
-- lease_expired: the worker stopped renewing, and rescue (a chore of the scheduler, every second) has not
--   taken the run back yet.
-- past_expiry: its expires_at has passed before it was started, and the scheduler has not ended it yet.
-- callback_overdue: the receiver has not called in time, and rescue has not ended the attempt yet.
-- past_deadline: the attempt's timeout is over, and its worker has not recorded that yet.
-- blocked_without_reason: parked although its target is not, or blocked by a bit that nothing clears.
-- unserved: the head of a lane has been due for a minute, and no live worker claims its target from its queue:
--   none that has the handler (or delivers callbacks) has the queue in HOWDAH_QUEUES. Where no worker at all
--   has the handler, runs are parked within that minute and show in tasks_blocked instead.
-- not_claimed: the head of a lane has been due for five minutes although a live worker claims its target from
--   its queue. Either the workers are full (see running) or the lane outgrows them (queue_depth).
-- The last two are not told of a paused queue, from which nobody is to claim (queue_states).
--
-- Consumers that claim over HTTP count as workers, for their tenant.
-- Workers that claim alike are taken together, and so are queues that the same of them claim from. Measured
-- with 10,000 queues, 100 handlers, 20 workers and 1,000,000 runs: 0.9 s, and 4.5 s with each queue matched
-- with each worker and each target.
-- OFFSET 0 keeps the probe for blocked runs together; see tasks_blocked.
CREATE OR REPLACE VIEW howdah.stuck AS
WITH kind AS MATERIALIZED (
    SELECT
        row_number() OVER () AS number, w.tenant_id, howdah.like_patterns(w.queues) AS queues, w.handlers, w.serves_http
    FROM howdah.workers AS w
    WHERE w.stopped_at IS NULL
        AND w.stopping_at IS NULL
        AND w.heartbeat_at > howdah.now() - make_interval(secs => w.silent_after_s)
    GROUP BY w.tenant_id, w.queues, w.handlers, w.serves_http
),
claimed AS MATERIALIZED (
    SELECT q.id AS queue_id, q.tenant_id, array_remove(array_agg(k.number ORDER BY k.number), NULL) AS kinds
    FROM howdah.queues AS q
    LEFT JOIN kind AS k ON q.name LIKE ANY (k.queues) AND coalesce(k.tenant_id, q.tenant_id) = q.tenant_id
    WHERE q.paused_until IS NULL OR q.paused_until <= howdah.now()
    GROUP BY q.id, q.tenant_id
),
served AS MATERIALIZED (
    SELECT
        c.tenant_id,
        c.kinds,
        CASE WHEN able.serves_http THEN ARRAY[0] ELSE '{}' END || ARRAY(
            SELECT g.id FROM howdah.targets AS g WHERE g.tenant_id = c.tenant_id AND g.handler = ANY (able.handlers)
        ) AS target_ids
    FROM (SELECT DISTINCT tenant_id, kinds FROM claimed) AS c
    CROSS JOIN LATERAL (
        SELECT bool_or(k.serves_http) AS serves_http, array_agg(h.handler) AS handlers
        FROM kind AS k
        LEFT JOIN LATERAL unnest(k.handlers) AS h (handler) ON true
        WHERE k.number = ANY (c.kinds)
    ) AS able
),
lane AS (
    SELECT c.queue_id, p.priority, s.target_ids
    FROM claimed AS c
    JOIN served AS s ON s.tenant_id = c.tenant_id AND s.kinds = c.kinds
    CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
),
found AS (
    SELECT
        CASE WHEN r.awaiting_at IS NULL THEN 'lease_expired' ELSE 'callback_overdue' END AS problem, r.tenant_id, r.task_id,
        r.queue_id, r.priority, r.target_id, r.attempt, CASE WHEN r.awaiting_at IS NULL THEN r.worker_id END AS worker_id,
        r.lease_expires_at AS since_at
    FROM howdah.runs AS r
    WHERE r.lease_expires_at < howdah.now()
    UNION ALL
    SELECT
        'past_deadline', r.tenant_id, r.task_id, r.queue_id, r.priority, r.target_id, r.attempt, r.worker_id, r.deadline_at
    FROM howdah.runs AS r
    WHERE r.deadline_at < howdah.now() AND r.lease_expires_at >= howdah.now()
    UNION ALL
    SELECT
        'past_expiry', r.tenant_id, r.task_id, r.queue_id, r.priority, r.target_id, r.attempt, NULL, r.expires_at
    FROM howdah.runs AS r
    WHERE r.expires_at IS NOT NULL AND r.lease_token IS NULL AND r.expires_at < howdah.now()
    UNION ALL
    SELECT
        'blocked_without_reason', q.tenant_id, r.task_id, q.id, p.priority, r.target_id, r.attempt, NULL,
        greatest(r.due_at, r.queued_at)
    FROM howdah.queues AS q
    CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT b.task_id, b.target_id, b.blocked_by, b.attempt, b.due_at, b.queued_at
        FROM howdah.runs AS b
        WHERE b.queue_id = q.id AND b.priority = p.priority AND b.lease_token IS NULL AND b.run_at = 'infinity'
        OFFSET 0
    ) AS r
    JOIN howdah.targets AS g ON g.id = r.target_id
    WHERE r.blocked_by <> 8 OR NOT g.is_parked
    UNION ALL
    SELECT
        CASE WHEN head.target_id = ANY (l.target_ids) THEN 'not_claimed' ELSE 'unserved' END,
        head.tenant_id, head.task_id, l.queue_id, l.priority, head.target_id, head.attempt, NULL,
        greatest(head.due_at, head.queued_at)
    FROM lane AS l
    CROSS JOIN LATERAL (
        SELECT r.tenant_id, r.task_id, r.target_id, r.attempt, r.run_at, r.due_at, r.queued_at
        FROM howdah.runs AS r
        WHERE r.queue_id = l.queue_id
            AND r.priority = l.priority
            AND r.lease_token IS NULL
            AND r.run_at <= howdah.now() - interval '1 minute'
        ORDER BY r.run_at, r.task_id
        LIMIT 1
    ) AS head
    JOIN howdah.targets AS g ON g.id = head.target_id
    WHERE CASE
        WHEN head.target_id = ANY (l.target_ids) THEN head.run_at <= howdah.now() - interval '5 minutes'
        ELSE NOT g.is_parked
    END
)
SELECT
    f.problem,
    t.name AS tenant,
    q.name AS queue,
    (ARRAY['low', 'normal', 'high', 'critical', 'granted'])[f.priority + 1] AS priority,
    f.task_id,
    coalesce(g.handler, 'http') AS target,
    f.attempt,
    w.name AS worker,
    f.since_at,
    round(extract(epoch FROM howdah.now() - f.since_at), 3) AS since_s
FROM found AS f
JOIN howdah.tenants AS t ON t.id = f.tenant_id
JOIN howdah.queues AS q ON q.id = f.queue_id
JOIN howdah.targets AS g ON g.id = f.target_id
LEFT JOIN howdah.workers AS w ON w.id = f.worker_id;

COMMENT ON VIEW howdah.stuck IS 'Runs that do not move although they should, and why. Of a lane that is not served or not claimed only the head is shown. Reads leased and blocked rows and the heads of lanes.';
COMMENT ON COLUMN howdah.stuck.problem IS 'lease_expired, callback_overdue, past_deadline, past_expiry, blocked_without_reason, unserved (due for a minute, and no live worker claims its target from its queue) or not_claimed (due for five minutes although one does).';
COMMENT ON COLUMN howdah.stuck.tenant IS 'Owner.';
COMMENT ON COLUMN howdah.stuck.queue IS 'Name of the queue.';
COMMENT ON COLUMN howdah.stuck.priority IS 'critical, high, normal or low; granted is internal.';
COMMENT ON COLUMN howdah.stuck.task_id IS 'The task.';
COMMENT ON COLUMN howdah.stuck.target IS 'Name of its handler, or http.';
COMMENT ON COLUMN howdah.stuck.attempt IS 'Attempts spent, the current one included.';
COMMENT ON COLUMN howdah.stuck.worker IS 'Name of the worker that holds it; NULL while it waits.';
COMMENT ON COLUMN howdah.stuck.since_at IS 'When the lease, the deadline or the expiry passed, or since when it could have been claimed.';
COMMENT ON COLUMN howdah.stuck.since_s IS 'Seconds since then. Below 5 for lease_expired, callback_overdue, past_deadline and past_expiry is normal.';
