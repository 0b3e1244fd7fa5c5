-- Which leased runs somebody else has locked, so that nothing can be recorded of them now.
-- params: tenant_ids, task_ids, lease_tokens: one element per lease.
-- returns: (tenant_id, task_id, lease_token) of each lease that is held and whose row is locked.
-- locks: the rows of the others, SKIP LOCKED, for as long as the statement takes.
-- index: runs_pkey
-- The locking step is LATERAL and compares with IS NOT DISTINCT FROM for the reasons given in run/fail.
WITH asked AS MATERIALIZED (
    SELECT u.tenant_id, u.task_id, u.lease_token
    FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[]) AS u (tenant_id, task_id, lease_token)
),
free AS MATERIALIZED (
    SELECT l.tenant_id, l.task_id
    FROM asked AS a
    CROSS JOIN LATERAL (
        SELECT r.tenant_id, r.task_id
        FROM howdah.runs AS r
        WHERE r.tenant_id = a.tenant_id AND r.task_id = a.task_id AND r.lease_token IS NOT DISTINCT FROM a.lease_token
        FOR UPDATE OF r SKIP LOCKED
    ) AS l
)
SELECT a.tenant_id, a.task_id, a.lease_token
FROM asked AS a
JOIN howdah.runs AS r
    ON r.tenant_id = a.tenant_id AND r.task_id = a.task_id AND r.lease_token IS NOT DISTINCT FROM a.lease_token
WHERE (a.tenant_id, a.task_id) NOT IN (SELECT f.tenant_id, f.task_id FROM free AS f)
