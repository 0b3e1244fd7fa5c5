-- Append what handlers said, as long as their leases are held.
-- params: tenant_ids, task_ids, lease_tokens, claim_nos, seqs, levels, fractions (of progress, or NULL), logged_ats,
--   messages, fields (JSON text or NULL): one element per entry.
-- returns: one row: entry_count: how many were stored by this call; a repeat stores nothing twice.
-- index: runs_pkey
-- A worker that lost its lease must not speak between the lines of the next attempt: who follows them has read on.
-- No row of runs is locked: claims, heartbeats and rescue pass by what is.
-- The look at runs is LATERAL and compares with IS NOT DISTINCT FROM for the reasons given in run/complete.
WITH stored AS (
    INSERT INTO howdah.task_logs (tenant_id, task_id, claim_no, seq, level, fraction, logged_at, message, fields)
    SELECT i.tenant_id, i.task_id, i.claim_no, i.seq, i.level, i.fraction, i.logged_at, i.message, i.fields::jsonb
    FROM unnest(
        %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[], %(claim_nos)b::integer[],
        %(seqs)b::integer[], %(levels)b::smallint[], %(fractions)b::real[], %(logged_ats)b::timestamptz[],
        %(messages)b::text[], %(fields)b::text[]
    ) AS i (tenant_id, task_id, lease_token, claim_no, seq, level, fraction, logged_at, message, fields)
    CROSS JOIN LATERAL (
        SELECT r.claim_no
        FROM howdah.runs AS r
        WHERE r.tenant_id = i.tenant_id AND r.task_id = i.task_id AND r.lease_token IS NOT DISTINCT FROM i.lease_token
    ) AS held
    ON CONFLICT DO NOTHING
    RETURNING seq
)
SELECT count(*)::integer AS entry_count FROM stored
