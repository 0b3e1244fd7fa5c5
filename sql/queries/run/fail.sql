-- End attempts that did not succeed: re-arm each run for its next attempt, or give its task up.
-- params: tenant_ids, task_ids, lease_tokens, outcomes (failed, timed_out, lost, or released: snoozed by its
--   handler), retryable, retry_ins_s (delay asked for by the target, or NULL), counts_crash (lost only),
--   is_decided (retryable and retry_ins_s hold whatever the policy says), errors (JSON text),
--   response_statuses, response_bodies, durations_s: one element per run; an empty array stands for NULLs.
-- returns: one row per run that was still held by its token: tenant_id, task_id, verdict retry, dead or
--   cancelled, and the lane with the run_at of its next attempt.
-- moves: running -> waiting (retry)
-- moves: running -> waiting (lost)
-- moves: running -> waiting (snooze)
-- moves: running -> failed (dead_letter)
-- moves: running -> cancelled (cancel)
-- moves: awaiting -> waiting (retry)
-- moves: awaiting -> failed (dead_letter)
-- locks: runs in (tenant_id, task_id) order.
-- index: runs_pkey, tasks_pkey
-- A queue that keeps no history gets no row of it, but for one that says cancelled: see run/complete.
-- The first lost lease is re-armed at once: most are restarts, not poison. A loss counts for every run that its worker
-- held, of which one at most is poison; so once a run has two, workers execute it alone (alone_state 2), and only then
-- a third loss counts, with which the task is given up. A loss while it still waited for that (1) costs it nothing. One
-- that was executed alone and did not take its worker along is cleared of those before. A cancel that was asked for
-- ends the task instead of another attempt. A snooze spends no attempt, but age bounds it: a handler that
-- snoozes for ever would keep its task for ever. Age counts from when the task was due, or was replayed.
-- The locking step is LATERAL and compares with IS NOT DISTINCT FROM for the reasons given in run/complete.
-- The answer is put together without a join of the parts: the hot path's plans know nested loops only,
-- and 500 runs with themselves took 165 ms in one.
WITH held AS MATERIALIZED (
    SELECT
        i.outcome, i.retryable, i.retry_in_s, i.counts_crash, i.is_decided, i.error, i.response_status,
        i.response_body, i.duration_s, run.*
    FROM (
        SELECT u.*
        FROM unnest(
            %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[], %(outcomes)b::text[],
            %(retryable)b::boolean[], %(retry_ins_s)b::double precision[], %(counts_crash)b::boolean[],
            %(is_decided)b::boolean[], %(errors)b::text[], %(response_statuses)b::smallint[], %(response_bodies)b::text[],
            %(durations_s)b::real[]
        ) AS u (
            tenant_id, task_id, lease_token, outcome, retryable, retry_in_s, counts_crash, is_decided, error,
            response_status, response_body, duration_s
        )
        ORDER BY u.tenant_id, u.task_id
    ) AS i
    CROSS JOIN LATERAL (
        SELECT
            r.tenant_id, r.task_id, r.queue_id, r.target_id, r.priority, r.claim_no, r.attempt, r.crashes, r.worker_id,
            r.lease_token, r.queued_at, r.claimed_at, r.cancel_mode, r.awaiting_at, r.alone_state, r.batch_id
        FROM howdah.runs AS r
        WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
        FOR UPDATE OF r
    ) AS run
),
judged AS MATERIALIZED (
    SELECT
        h.tenant_id, h.task_id, h.queue_id, h.target_id, h.priority, h.claim_no, h.attempt, h.worker_id, h.lease_token,
        h.queued_at, h.claimed_at, h.batch_id, h.outcome, h.outcome = 'released' AS is_snoozed, h.response_status, h.response_body,
        h.outcome = 'released' OR loss.is_unstarted AS is_unspent,
        h.outcome <> 'lost' AND loss.is_own AS is_cleared,
        coalesce(
            h.duration_s, CASE WHEN h.awaiting_at IS NOT NULL THEN extract(epoch FROM howdah.now() - h.claimed_at) END
        ) AS duration_s,
        h.error::jsonb AS error,
        q.keep_history,
        crash.count AS crashes,
        delay.seconds AS delay_s,
        CASE
            WHEN h.cancel_mode IS NOT NULL THEN 'cancelled'
            WHEN NOT CASE
                WHEN h.is_decided THEN h.retryable
                WHEN h.response_status IS NOT NULL AND policy.fields ? 'statuses'
                    THEN policy.fields -> 'statuses' @> to_jsonb(h.response_status)
                WHEN h.response_status IS NULL AND policy.fields ? 'errors'
                    THEN policy.fields -> 'errors' ? (h.error::jsonb ->> 'type')
                ELSE h.retryable
            END THEN 'not_retryable'
            WHEN crash.count >= 3 THEN 'crashes'
            WHEN h.outcome <> 'released' AND NOT loss.is_unstarted AND h.attempt >= (policy.fields ->> 'max_attempts')::integer
                THEN 'attempts'
            WHEN howdah.now() + make_interval(secs => delay.seconds)
                > coalesce(t.run_at, h.queued_at) + make_interval(secs => howdah.duration_s(policy.fields ->> 'max_age'))
                THEN 'age'
        END AS ending
    FROM held AS h
    JOIN howdah.queues AS q ON q.id = h.queue_id
    LEFT JOIN howdah.tasks AS t ON t.tenant_id = h.tenant_id AND t.id = h.task_id
    CROSS JOIN LATERAL (
        SELECT
            h.outcome = 'lost' AND h.alone_state IS NOT DISTINCT FROM 1 AS is_unstarted,
            h.alone_state IS NOT DISTINCT FROM 2 AS is_own
    ) AS loss
    CROSS JOIN LATERAL (
        SELECT h.crashes + (h.outcome = 'lost' AND h.counts_crash AND (h.crashes < 2 OR loss.is_own))::integer AS count
    ) AS crash
    CROSS JOIN LATERAL (SELECT howdah.retry_policy(q.retry, t.retry) AS fields) AS policy
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN h.outcome = 'lost' AND h.crashes = 0 THEN 0
            WHEN h.retry_in_s IS NOT NULL AND h.is_decided THEN h.retry_in_s
            WHEN h.retry_in_s IS NOT NULL THEN least(h.retry_in_s, howdah.duration_s(policy.fields ->> 'max'))
            ELSE howdah.retry_delay_s(policy.fields, h.attempt, random())
        END AS seconds
    ) AS delay
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, response_status, duration_s,
        queued_at, claimed_at, finished_at, lease_token, error, response_body, batch_id
    )
    SELECT
        j.tenant_id, j.task_id, j.claim_no, j.attempt, j.queue_id, j.worker_id,
        CASE
            WHEN j.ending = 'cancelled' THEN 'cancelled'
            WHEN j.is_snoozed AND j.ending IS NOT NULL THEN 'failed'
            ELSE j.outcome
        END,
        j.ending IS NOT NULL, j.response_status,
        j.duration_s, j.queued_at, j.claimed_at, howdah.now(), j.lease_token, j.error, j.response_body,
        CASE WHEN j.ending IS NOT NULL THEN j.batch_id END
    FROM judged AS j
    WHERE j.keep_history <> 'none' OR j.ending = 'cancelled'
),
forgotten AS (
    INSERT INTO howdah.ended_leases (tenant_id, task_id, lease_token, outcome, ended_at)
    SELECT
        j.tenant_id, j.task_id, j.lease_token, CASE WHEN j.is_snoozed AND j.ending IS NOT NULL THEN 'failed' ELSE j.outcome END,
        howdah.now()
    FROM judged AS j
    WHERE j.keep_history = 'none' AND j.ending IS DISTINCT FROM 'cancelled'
),
buried AS (
    INSERT INTO howdah.dead_letters (
        tenant_id, task_id, queue_id, target_id, priority, claim_no, attempt, crashes, reason, queued_at, dead_at, error, batch_id
    )
    SELECT
        j.tenant_id, j.task_id, j.queue_id, j.target_id, j.priority, j.claim_no, j.attempt, j.crashes, j.ending,
        j.queued_at, howdah.now(), j.error, j.batch_id
    FROM judged AS j
    WHERE j.ending IS NOT NULL AND j.ending <> 'cancelled'
),
ended AS (
    DELETE FROM howdah.runs AS r
    USING judged AS j
    WHERE j.ending IS NOT NULL AND r.tenant_id = j.tenant_id AND r.task_id = j.task_id
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
        attempt = r.attempt - j.is_unspent::integer,
        crashes = CASE WHEN j.is_cleared THEN 0 ELSE j.crashes END,
        run_at = howdah.now() + make_interval(secs => j.delay_s),
        due_at = howdah.now() + make_interval(secs => j.delay_s)
    FROM judged AS j
    WHERE j.ending IS NULL AND r.tenant_id = j.tenant_id AND r.task_id = j.task_id
    RETURNING r.tenant_id, r.task_id, j.lease_token, r.queue_id, r.priority, r.run_at
)
SELECT a.tenant_id, a.task_id, a.lease_token, 'retry' AS verdict, a.queue_id, a.priority, a.run_at
FROM rearmed AS a
UNION ALL
SELECT
    j.tenant_id, j.task_id, j.lease_token, CASE WHEN j.ending = 'cancelled' THEN 'cancelled' ELSE 'dead' END, j.queue_id,
    j.priority, NULL
FROM judged AS j
WHERE j.ending IS NOT NULL
