-- End runs for good: delete their rows and append their history.
-- params: tenant_ids, task_ids, lease_tokens, outcomes (succeeded or cancelled), results (JSON text),
--   errors (JSON text), response_statuses, response_bodies, durations_s: one element per run; of results, errors and
--   response_… an empty array stands for NULLs.
-- returns: (task_id, lease_token) of each run that was still held by its token.
-- moves: running -> succeeded (finish)
-- moves: running -> cancelled (cancel)
-- moves: awaiting -> succeeded (finish)
-- locks: runs in (tenant_id, task_id) order.
-- index: runs_pkey, queues_history_idx
-- Of a success in a queue that keeps less than all history only what tells a repeat of this report is kept; which
-- queues these are is asked once, of an index that holds no others. A cancelled task keeps its row in any queue: no
-- other says what became of it.
-- Where there are no such queues, no run is looked up among them: that cost 0.2 us. (A CTE in place of the
-- subqueries is not hashed: 60 us a run with 2,000 of them.)
-- The DELETE is its own locking step: a nested loop takes the sorted report row by row, and each run by its
-- primary key. (Locking first and deleting then cost 3 us a run more, and a record of WAL.)
-- IS NOT DISTINCT FROM keeps the planner off the partial indexes of leased rows, which look empty whenever
-- statistics were taken with nothing running (seen: 500 times the cost). Tokens are never NULL.
-- Of a run that a callback ends nobody but the database knows how long it took.
WITH ended AS (
    DELETE FROM howdah.runs AS r
    USING (
        SELECT u.*
        FROM unnest(
            %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[], %(outcomes)b::text[],
            %(results)b::text[], %(errors)b::text[], %(response_statuses)b::smallint[], %(response_bodies)b::text[],
            %(durations_s)b::real[]
        ) AS u (
            tenant_id, task_id, lease_token, outcome, result, error, response_status, response_body, duration_s
        )
        ORDER BY u.tenant_id, u.task_id
    ) AS i
    WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
    RETURNING
        r.tenant_id, r.task_id, r.claim_no, r.attempt, r.queue_id, r.worker_id, i.outcome, i.response_status,
        coalesce(
            i.duration_s, CASE WHEN r.awaiting_at IS NOT NULL THEN extract(epoch FROM howdah.now() - r.claimed_at) END
        ) AS duration_s,
        r.queued_at, r.claimed_at, r.lease_token, i.result, i.error, i.response_body,
        CASE WHEN i.outcome = 'cancelled' THEN r.batch_id END AS batch_id
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, response_status, duration_s,
        queued_at, claimed_at, finished_at, lease_token, result, error, response_body, batch_id
    )
    SELECT
        e.tenant_id, e.task_id, e.claim_no, e.attempt, e.queue_id, e.worker_id, e.outcome, true, e.response_status, e.duration_s,
        e.queued_at, e.claimed_at, (SELECT howdah.now()), e.lease_token, e.result::json, e.error::jsonb, e.response_body,
        e.batch_id
    FROM ended AS e
    WHERE NOT EXISTS (SELECT FROM howdah.queues AS q WHERE q.keep_history <> 'all')
        OR e.queue_id NOT IN (SELECT q.id FROM howdah.queues AS q WHERE q.keep_history <> 'all')
        OR e.outcome = 'cancelled'
),
forgotten AS (
    INSERT INTO howdah.ended_leases (tenant_id, task_id, lease_token, outcome, ended_at)
    SELECT e.tenant_id, e.task_id, e.lease_token, e.outcome, (SELECT howdah.now())
    FROM ended AS e
    WHERE EXISTS (SELECT FROM howdah.queues AS q WHERE q.keep_history <> 'all')
        AND e.queue_id IN (SELECT q.id FROM howdah.queues AS q WHERE q.keep_history <> 'all')
        AND e.outcome <> 'cancelled'
)
SELECT e.task_id, e.lease_token
FROM ended AS e
