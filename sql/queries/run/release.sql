-- Hand runs back that were claimed but will not be executed here; the attempt is not spent.
-- params: tenant_ids, task_ids, lease_tokens: one element per run.
-- returns: one row per run that was still held by its token, with its lane and new run_at.
-- moves: running -> waiting (release)
-- moves: running -> cancelled (cancel)
-- locks: runs in (tenant_id, task_id) order.
-- index: runs_pkey
-- run_at becomes now, so that the run lies above every worker's horizon; its age stays in queued_at.
-- The locking step is LATERAL and compares with IS NOT DISTINCT FROM for the reasons given in run/complete.
-- The answer is put together without a join of the parts: the hot path's plans know nested loops only,
-- and 500 runs with themselves took 165 ms in one.
WITH held AS MATERIALIZED (
    SELECT run.*
    FROM (
        SELECT u.*
        FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[]) AS u (
            tenant_id, task_id, lease_token
        )
        ORDER BY u.tenant_id, u.task_id
    ) AS i
    CROSS JOIN LATERAL (
        SELECT
            r.tenant_id, r.task_id, r.queue_id, r.priority, r.claim_no, r.attempt, r.worker_id, r.lease_token, r.queued_at,
            r.claimed_at, r.cancel_mode, r.batch_id, q.keep_history
        FROM howdah.runs AS r
        JOIN howdah.queues AS q ON q.id = r.queue_id
        WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
        FOR UPDATE OF r
    ) AS run
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, queued_at, claimed_at, finished_at,
        lease_token, batch_id
    )
    SELECT
        h.tenant_id, h.task_id, h.claim_no, h.attempt, h.queue_id, h.worker_id,
        CASE WHEN h.cancel_mode IS NULL THEN 'released' ELSE 'cancelled' END, h.cancel_mode IS NOT NULL,
        h.queued_at, h.claimed_at, howdah.now(), h.lease_token, CASE WHEN h.cancel_mode IS NOT NULL THEN h.batch_id END
    FROM held AS h
    WHERE h.keep_history <> 'none' OR h.cancel_mode IS NOT NULL
),
forgotten AS (
    INSERT INTO howdah.ended_leases (tenant_id, task_id, lease_token, outcome, ended_at)
    SELECT h.tenant_id, h.task_id, h.lease_token, 'released', howdah.now()
    FROM held AS h
    WHERE h.keep_history = 'none' AND h.cancel_mode IS NULL
),
ended AS (
    DELETE FROM howdah.runs AS r
    USING held AS h
    WHERE h.cancel_mode IS NOT NULL AND r.tenant_id = h.tenant_id AND r.task_id = h.task_id
),
rearmed AS (
    UPDATE howdah.runs AS r
    SET lease_token = NULL,
        lease_expires_at = NULL,
        deadline_at = NULL,
        worker_id = NULL,
        claimed_at = NULL,
        awaiting_at = NULL,
        alone_state = NULL,
        attempt = r.attempt - 1,
        run_at = howdah.now()
    FROM held AS h
    WHERE h.cancel_mode IS NULL AND r.tenant_id = h.tenant_id AND r.task_id = h.task_id
    RETURNING r.tenant_id, r.task_id, h.lease_token, r.queue_id, r.priority, r.run_at
)
SELECT a.tenant_id, a.task_id, a.lease_token, 'released' AS verdict, a.queue_id, a.priority, a.run_at
FROM rearmed AS a
UNION ALL
SELECT h.tenant_id, h.task_id, h.lease_token, 'cancelled', h.queue_id, h.priority, NULL
FROM held AS h
WHERE h.cancel_mode IS NOT NULL
