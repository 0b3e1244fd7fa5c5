-- Delete bulk operations that ended long ago, a page at a time.
-- params: retention_s.
-- returns: one row per deleted operation; at most 10,000.
-- locks: the deleted rows, which nobody updates.
-- index: operations_finished_idx
DELETE FROM howdah.operations AS o
WHERE (o.tenant_id, o.id) IN (
    SELECT old.tenant_id, old.id
    FROM howdah.operations AS old
    WHERE old.state <> 'running' AND old.finished_at < howdah.now() - make_interval(secs => %(retention_s)b::double precision)
    ORDER BY old.finished_at
    LIMIT 10000
)
RETURNING o.id
