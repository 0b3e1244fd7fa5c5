-- Delete batches that were completed long ago, a page at a time, once batch/delete_old_tasks has left nothing of them.
-- params: retention_s.
-- returns: one row per deleted batch; at most 10,000.
-- locks: the deleted rows, which nobody updates.
-- index: batches_completed_idx, batch_tasks_pkey
DELETE FROM howdah.batches AS b
WHERE (b.tenant_id, b.id) IN (
    SELECT old.tenant_id, old.id
    FROM howdah.batches AS old
    WHERE old.completed_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
        AND NOT EXISTS (SELECT FROM howdah.batch_tasks AS t WHERE t.tenant_id = old.tenant_id AND t.batch_id = old.id)
    ORDER BY old.completed_at
    LIMIT 10000
)
RETURNING b.id
