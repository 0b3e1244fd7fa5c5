-- Forget leases that ended ten minutes ago, a page of them.
-- params: none.
-- returns: one row per forgotten lease; at most 10,000.
-- locks: the deleted rows, which nobody updates.
-- index: ended_leases_ended_idx
DELETE FROM howdah.ended_leases AS e
WHERE (e.tenant_id, e.task_id, e.lease_token) IN (
    SELECT old.tenant_id, old.task_id, old.lease_token
    FROM howdah.ended_leases AS old
    WHERE old.ended_at < howdah.now() - interval '10 minutes'
    ORDER BY old.ended_at
    LIMIT 10000
)
RETURNING e.task_id
