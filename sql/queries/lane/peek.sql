-- The next run_at of each given lane at or above its horizon, so that a worker knows which lanes have
-- due work and how long it may sleep.
-- params: queue_ids, priorities, horizon_run_ats, horizon_task_ids: one element per lane (at most 1000);
--   target_ids: what the worker serves; ahead_s: runs due later than that are left to another look.
-- returns: queue_id, priority, run_at of each lane that has such a run, and of each lane that is closed, because its
--   queue is paused or its limits leave no room, where run_at is when it opens (NULL: that is not known); wait_s:
--   seconds until then; is_closed.
-- index: runs_ready_idx, queues_pkey, runs_lease_idx
-- A closed lane is not looked into. It is told, because a lane of which nothing is said counts as drained.
-- What no claim takes is passed by here too, or a worker would claim in vain, again and again, until the chore has
-- ended an expired run.
-- The index does not know targets: without the bound, a lane full of other workers' runs that are due next week was
-- walked to its end (300,000 of them: 0.27 s) each time that this worker found nothing due.
WITH busy AS MATERIALIZED (
    -- Leased rows are looked at only if there is a queue with max_running.
    SELECT r.queue_id, count(*) AS running
    FROM howdah.runs AS r
    WHERE r.lease_expires_at IS NOT NULL AND r.queue_id = ANY (%(queue_ids)b::integer[])
    GROUP BY r.queue_id
)
SELECT
    lane.queue_id, lane.priority, coalesce(first.run_at, gate.opens_at) AS run_at,
    extract(epoch FROM coalesce(first.run_at, gate.opens_at) - howdah.now())::double precision AS wait_s, gate.is_closed
FROM unnest(
    %(queue_ids)b::integer[], %(priorities)b::smallint[], %(horizon_run_ats)b::timestamptz[], %(horizon_task_ids)b::uuid[]
) AS lane (queue_id, priority, horizon_run_at, horizon_task_id)
JOIN howdah.queues AS q ON q.id = lane.queue_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(q.paused_until > howdah.now(), false) AS is_paused,
        q.max_running IS NOT NULL
            AND coalesce((SELECT b.running FROM busy AS b WHERE b.queue_id = q.id), 0) >= q.max_running AS is_full,
        CASE WHEN q.rate_limit IS NOT NULL THEN
            howdah.gate_opens_at(
                q.gate_at, howdah.gate_block(q.rate_limit, q.rate_period_s, q.rate_burst), q.rate_limit, q.rate_period_s,
                q.rate_burst
            )
        END AS rate_opens_at
) AS limits
CROSS JOIN LATERAL (
    SELECT
        limits.is_paused OR limits.is_full OR coalesce(limits.rate_opens_at > howdah.now(), false) AS is_closed,
        CASE
            WHEN limits.is_paused THEN nullif(greatest(q.paused_until, limits.rate_opens_at), 'infinity')
            WHEN NOT limits.is_full AND limits.rate_opens_at > howdah.now() THEN limits.rate_opens_at
        END AS opens_at
) AS gate
LEFT JOIN LATERAL (
    SELECT r.run_at
    FROM howdah.runs AS r
    WHERE r.queue_id = lane.queue_id
        AND r.priority = lane.priority
        AND r.lease_token IS NULL
        AND r.target_id = ANY (%(target_ids)b::integer[])
        AND (r.expires_at IS NULL OR r.expires_at > howdah.now())
        AND r.run_at <= howdah.now() + make_interval(secs => %(ahead_s)b::double precision)
        AND (r.run_at, r.task_id) >= (lane.horizon_run_at, lane.horizon_task_id)
    ORDER BY r.run_at, r.task_id
    LIMIT 1
) AS first ON NOT gate.is_closed
WHERE gate.is_closed OR first.run_at IS NOT NULL
