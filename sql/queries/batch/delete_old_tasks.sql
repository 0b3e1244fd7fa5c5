-- Forget which tasks batches had that were completed long ago, a page at a time.
-- params: retention_s.
-- returns: one row per deleted row; at most 10,000.
-- locks: the deleted rows, which nobody updates.
-- index: batches_completed_idx, batch_tasks_pkey
DELETE FROM howdah.batch_tasks AS t
WHERE t.ctid = ANY (ARRAY(
    SELECT m.ctid
    FROM howdah.batches AS b
    CROSS JOIN LATERAL (
        SELECT o.ctid FROM howdah.batch_tasks AS o WHERE o.tenant_id = b.tenant_id AND o.batch_id = b.id
    ) AS m
    WHERE b.completed_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
    LIMIT 10000
))
RETURNING t.task_id
