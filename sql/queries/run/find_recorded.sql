-- What was recorded for leases whose report matched no live run: tells a repeat from a late report.
-- params: tenant_ids, task_ids, lease_tokens: one element per lease.
-- returns: (tenant_id, task_id, lease_token, outcome) of each lease that history knows, or of which a queue that
--   keeps less of it knows for ten minutes.
-- index: finished_runs_pkey, ended_leases_pkey
-- A statement of its own, with a fresh snapshot: in the same one, a repeat that raced the first report
-- would be told that its lease was lost.
SELECT f.tenant_id, f.task_id, f.lease_token, f.outcome
FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[]) AS i (tenant_id, task_id, lease_token)
JOIN howdah.finished_runs AS f
    ON f.tenant_id = i.tenant_id AND f.task_id = i.task_id AND f.lease_token = i.lease_token
UNION ALL
SELECT e.tenant_id, e.task_id, e.lease_token, e.outcome
FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[]) AS i (tenant_id, task_id, lease_token)
JOIN howdah.ended_leases AS e
    ON e.tenant_id = i.tenant_id AND e.task_id = i.task_id AND e.lease_token = i.lease_token
