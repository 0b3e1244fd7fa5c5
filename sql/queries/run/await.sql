-- Let runs wait for their outcome: their receivers have accepted them with 202, and will call back.
-- params: tenant_ids, task_ids, lease_tokens: one element per run.
-- returns: one row per run that is still held by its token: tenant_id, task_id, verdict awaiting or cancelled, its
--   lane; run_at is always NULL.
-- moves: running -> awaiting (await)
-- moves: running -> cancelled (cancel)
-- locks: runs in (tenant_id, task_id) order.
-- index: runs_pkey, tasks_pkey
-- The lease stays, with its token, and ends when the callback is overdue: then rescue ends the attempt. The deadline
-- is an hour away unless the task says otherwise. A repeat after a lost answer changes nothing. A cancel that was asked
-- for meanwhile ends the task: nobody else would.
-- The locking step is LATERAL and compares with IS NOT DISTINCT FROM for the reasons given in run/complete.
-- The answer is put together without a join of the parts, for the reason given in run/fail.
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
            r.claimed_at, r.cancel_mode, r.awaiting_at
        FROM howdah.runs AS r
        WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
        FOR UPDATE OF r
    ) AS run
),
allowed AS MATERIALIZED (
    SELECT
        h.tenant_id, h.task_id,
        coalesce(howdah.duration_s(t.http ->> 'callback_timeout'), 3600) AS callback_s,
        howdah.duration_s(t.http ->> 'heartbeat_timeout') AS heartbeat_s
    FROM held AS h
    LEFT JOIN howdah.tasks AS t ON t.tenant_id = h.tenant_id AND t.id = h.task_id
    WHERE h.cancel_mode IS NULL AND h.awaiting_at IS NULL
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, queued_at, claimed_at, finished_at,
        lease_token
    )
    SELECT
        h.tenant_id, h.task_id, h.claim_no, h.attempt, h.queue_id, h.worker_id, 'cancelled', true, h.queued_at,
        h.claimed_at, howdah.now(), h.lease_token
    FROM held AS h
    WHERE h.cancel_mode IS NOT NULL
),
ended AS (
    DELETE FROM howdah.runs AS r
    USING held AS h
    WHERE h.cancel_mode IS NOT NULL AND r.tenant_id = h.tenant_id AND r.task_id = h.task_id
),
begun AS (
    UPDATE howdah.runs AS r
    SET awaiting_at = howdah.now(),
        deadline_at = howdah.now() + make_interval(secs => a.callback_s),
        lease_expires_at = howdah.now() + make_interval(secs => least(a.callback_s, a.heartbeat_s))
    FROM allowed AS a
    WHERE r.tenant_id = a.tenant_id AND r.task_id = a.task_id
)
SELECT
    h.tenant_id, h.task_id, h.lease_token, CASE WHEN h.cancel_mode IS NULL THEN 'awaiting' ELSE 'cancelled' END AS verdict,
    h.queue_id, h.priority, NULL::timestamptz AS run_at
FROM held AS h
