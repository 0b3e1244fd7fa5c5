-- The row work of one claim and one finish of 500 runs, as pgbench does it: no leases to check, no
-- horizons, no lanes, no Python. What Howdah reaches is judged against this, in the same sitting.
WITH picked AS MATERIALIZED (
    SELECT r.ctid, r.tenant_id, r.task_id
    FROM howdah.runs AS r
    WHERE r.queue_id = :queue_id AND r.priority = 1 AND r.lease_token IS NULL AND r.run_at <= statement_timestamp()
    ORDER BY r.run_at, r.task_id
    LIMIT 500
    FOR UPDATE SKIP LOCKED
)
UPDATE howdah.runs AS r
SET claim_no = r.claim_no + 1,
    attempt = r.attempt + 1,
    lease_token = gen_random_uuid(),
    lease_expires_at = statement_timestamp() + interval '15 s',
    deadline_at = statement_timestamp() + interval '60 s',
    worker_id = :client_id + 1,
    claimed_at = statement_timestamp()
FROM picked
JOIN howdah.tasks AS t ON t.tenant_id = picked.tenant_id AND t.id = picked.task_id
WHERE r.ctid = picked.ctid
RETURNING r.tenant_id, r.task_id, r.lease_token, r.claim_no, r.attempt, t.payload;
WITH ended AS (
    DELETE FROM howdah.runs AS r
    WHERE r.queue_id = :queue_id AND r.lease_token IS NOT NULL AND r.worker_id = :client_id + 1
    RETURNING r.tenant_id, r.task_id, r.claim_no, r.attempt, r.queue_id, r.worker_id, r.queued_at, r.claimed_at, r.lease_token
)
INSERT INTO howdah.finished_runs (
    tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, queued_at, claimed_at, finished_at, lease_token
)
SELECT
    e.tenant_id, e.task_id, e.claim_no, e.attempt, e.queue_id, e.worker_id, 'succeeded', true, e.queued_at, e.claimed_at,
    statement_timestamp(), e.lease_token
FROM ended AS e;
