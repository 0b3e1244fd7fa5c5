-- What waits that no live worker takes: of each lane the head, if nobody claims its target from its queue (see
-- the view stuck), and the first run that is parked because nobody serves its target at all.
-- params: row_count.
-- returns: at most row_count rows, the longest wait first: tenant, queue, target (handler or http), is_parked, since_s.
-- index: runs_ready_idx
-- Paused queues are left out: nobody is to take from them.
SELECT
    w.tenant, w.queue, w.target, w.is_parked, max(w.since_s)::double precision AS since_s
FROM (
    SELECT s.tenant, s.queue, s.target, false AS is_parked, s.since_s
    FROM howdah.stuck AS s
    WHERE s.problem = 'unserved'
    UNION ALL
    SELECT
        t.name, q.name, coalesce(g.handler, 'http'), true,
        extract(epoch FROM howdah.now() - greatest(r.due_at, r.queued_at))
    FROM howdah.queues AS q
    CROSS JOIN (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT b.tenant_id, b.target_id, b.due_at, b.queued_at
        FROM howdah.runs AS b
        WHERE b.queue_id = q.id
            AND b.priority = p.priority
            AND b.lease_token IS NULL
            AND b.run_at = 'infinity'
            AND b.blocked_by & 8 <> 0
        ORDER BY b.run_at, b.task_id
        LIMIT 1
    ) AS r
    JOIN howdah.tenants AS t ON t.id = r.tenant_id
    JOIN howdah.targets AS g ON g.id = r.target_id
    WHERE q.paused_until IS NULL OR q.paused_until <= howdah.now()
) AS w
GROUP BY w.tenant, w.queue, w.target, w.is_parked
ORDER BY since_s DESC
LIMIT %(row_count)b::integer
