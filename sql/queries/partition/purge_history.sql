-- Delete the history of tasks of a range of ids whose rows are gone, a page at a time.
-- params: id_from; id_until.
-- returns: task_id of each; at most 10,000.
-- locks: the deleted rows.
-- index: tasks_pkey
DELETE FROM howdah.finished_runs AS f
WHERE (f.tenant_id, f.task_id, f.claim_no) IN (
    SELECT o.tenant_id, o.task_id, o.claim_no
    FROM howdah.finished_runs AS o
    WHERE o.task_id >= %(id_from)b::uuid
        AND o.task_id < %(id_until)b::uuid
        AND NOT EXISTS (SELECT 1 FROM howdah.tasks AS t WHERE t.tenant_id = o.tenant_id AND t.id = o.task_id)
    LIMIT 10000
)
    AND f.task_id >= %(id_from)b::uuid
    AND f.task_id < %(id_until)b::uuid
RETURNING f.task_id
