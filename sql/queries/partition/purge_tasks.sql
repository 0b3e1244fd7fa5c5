-- Delete tasks of a range of ids that ended for good some time ago, a page at a time.
-- params: id_from; id_until; retention_s: how long they are kept after their end.
-- returns: id of each; at most 10,000.
-- locks: the deleted rows.
-- index: runs_pkey, dead_letters_pkey, finished_runs_pkey
DELETE FROM howdah.tasks AS t
WHERE (t.tenant_id, t.id) IN (
    SELECT o.tenant_id, o.id
    FROM howdah.tasks AS o
    WHERE o.id >= %(id_from)b::uuid
        AND o.id < %(id_until)b::uuid
        AND NOT EXISTS (SELECT 1 FROM howdah.runs AS r WHERE r.tenant_id = o.tenant_id AND r.task_id = o.id)
        AND NOT EXISTS (SELECT 1 FROM howdah.dead_letters AS d WHERE d.tenant_id = o.tenant_id AND d.task_id = o.id)
        AND NOT EXISTS (
            SELECT 1
            FROM howdah.finished_runs AS f
            WHERE f.tenant_id = o.tenant_id
                AND f.task_id = o.id
                AND f.finished_at > howdah.now() - make_interval(secs => %(retention_s)b::double precision)
        )
    LIMIT 10000
)
    AND t.id >= %(id_from)b::uuid
    AND t.id < %(id_until)b::uuid
RETURNING t.id
