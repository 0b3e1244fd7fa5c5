-- Delete the logs of tasks of a range of ids whose rows are gone, a page at a time.
-- params: id_from; id_until.
-- returns: task_id of each entry; at most 10,000.
-- locks: the deleted rows.
-- index: tasks_pkey
DELETE FROM howdah.task_logs AS l
WHERE (l.tenant_id, l.task_id, l.claim_no, l.seq) IN (
    SELECT o.tenant_id, o.task_id, o.claim_no, o.seq
    FROM howdah.task_logs AS o
    WHERE o.task_id >= %(id_from)b::uuid
        AND o.task_id < %(id_until)b::uuid
        AND NOT EXISTS (SELECT 1 FROM howdah.tasks AS t WHERE t.tenant_id = o.tenant_id AND t.id = o.task_id)
    LIMIT 10000
)
    AND l.task_id >= %(id_from)b::uuid
    AND l.task_id < %(id_until)b::uuid
RETURNING l.task_id
