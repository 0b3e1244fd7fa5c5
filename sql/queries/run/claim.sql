-- Lease ready runs of the offered lanes, oldest first in each, without waiting for anybody. Lanes of queues that
-- have limits are passed by: see run/claim_limited.
-- params: queue_ids, priorities, horizon_run_ats, horizon_task_ids, shares: one element per lane (at most 256);
--   target_ids: what the worker serves; worker_id; lease_token: a new random UUID; lease_s: seconds;
--   grace_s: a lease reaches at most so far past its run's deadline. Workers, which end runs at the deadline by
--   themselves, say so much that it never matters; whoever pulls over HTTP may ask for a lease of an hour.
-- returns: one row per claimed run with what its execution needs, 0 to sum(shares).
-- moves: waiting -> running (claim)
-- locks: runs by run_at within each lane, SKIP LOCKED.
-- index: runs_ready_idx, tasks_pkey
-- Lanes of paused queues are passed by: judged here, no wake-up or chore need come in time.
-- The locking step is MATERIALIZED: inlined, the planner may run it again and claim more than the shares.
-- A run that has expired is not started however late the chore is that ends it; it must lie at the head for a second only.
-- `(SELECT howdah.now())` is asked once, howdah.now() for each run.
-- Locked rows cannot move, so the UPDATE finds them by ctid; a row that changed since the snapshot is
-- missed by it and stays for the next claim.
WITH picked AS MATERIALIZED (
    SELECT ready.ctid, ready.tenant_id, ready.task_id, q.timeout_s
    FROM unnest(
        %(queue_ids)b::integer[], %(priorities)b::smallint[], %(horizon_run_ats)b::timestamptz[],
        %(horizon_task_ids)b::uuid[], %(shares)b::integer[]
    ) AS lane (queue_id, priority, horizon_run_at, horizon_task_id, share)
    JOIN howdah.queues AS q ON q.id = lane.queue_id
        AND NOT q.is_limited
        AND (q.paused_until IS NULL OR q.paused_until <= howdah.now())
    CROSS JOIN LATERAL (
        SELECT r.ctid, r.tenant_id, r.task_id
        FROM howdah.runs AS r
        WHERE r.queue_id = lane.queue_id
            AND r.priority = lane.priority
            AND r.lease_token IS NULL
            AND r.target_id = ANY (%(target_ids)b::integer[])
            AND r.run_at <= howdah.now()
            AND (r.expires_at IS NULL OR r.expires_at > howdah.now())
            AND (r.run_at, r.task_id) >= (lane.horizon_run_at, lane.horizon_task_id)
        ORDER BY r.run_at, r.task_id
        LIMIT lane.share
        FOR UPDATE OF r SKIP LOCKED
    ) AS ready
)
UPDATE howdah.runs AS r
SET claim_no = r.claim_no + 1,
    attempt = r.attempt + 1,
    lease_token = %(lease_token)b::uuid,
    lease_expires_at = (SELECT howdah.now()) + make_interval(
        secs => least(%(lease_s)b::double precision, coalesce(t.timeout_s, picked.timeout_s) + %(grace_s)b::double precision)
    ),
    deadline_at = (SELECT howdah.now()) + make_interval(secs => coalesce(t.timeout_s, picked.timeout_s)),
    worker_id = %(worker_id)b::integer,
    claimed_at = (SELECT howdah.now())
FROM picked
LEFT JOIN howdah.tasks AS t ON t.tenant_id = picked.tenant_id AND t.id = picked.task_id
WHERE r.ctid = picked.ctid
RETURNING
    r.tenant_id, r.task_id, r.queue_id, r.target_id, r.priority, r.claim_no, r.attempt, r.run_at, r.queued_at,
    coalesce(t.timeout_s, picked.timeout_s) AS timeout_s, r.deadline_at,
    t.id IS NOT NULL AS has_task, t.payload, t.http, t.tags, t.traceparent, t.parent_id, t.completes_batch_id,
    r.flow_key_id, r.batch_id, r.has_follow_ups, r.crashes
