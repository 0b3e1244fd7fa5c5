-- The history of a task's claims, oldest first, and the live one last.
-- params: tenant_id; id; after: claim number of the last row seen (-1 from the start); row_count.
-- returns: rows of ended claims and, while it runs, one with outcome NULL.
-- index: finished_runs_pkey, runs_pkey
SELECT
    f.claim_no, f.attempt, f.outcome, f.is_final, w.name AS worker, f.response_status, f.duration_s, f.queued_at, f.claimed_at,
    f.finished_at, f.result, f.error, f.response_body
FROM howdah.finished_runs AS f
LEFT JOIN howdah.workers AS w ON w.id = f.worker_id
WHERE f.tenant_id = %(tenant_id)b::integer AND f.task_id = %(id)b::uuid AND f.claim_no > %(after)b::integer
UNION ALL
SELECT
    r.claim_no, r.attempt, NULL, false, w.name, NULL, NULL, r.queued_at, r.claimed_at, NULL, NULL, NULL, NULL
FROM howdah.runs AS r
LEFT JOIN howdah.workers AS w ON w.id = r.worker_id
WHERE r.tenant_id = %(tenant_id)b::integer
    AND r.task_id = %(id)b::uuid
    AND r.lease_token IS NOT NULL
    AND r.claim_no > %(after)b::integer
ORDER BY claim_no
LIMIT %(row_count)b::integer
