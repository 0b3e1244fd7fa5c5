-- A page of what was logged of a task, oldest first.
-- params: tenant_id; id; after_claim_no, after_seq: the last entry seen (0, 0 from the start); level: the lowest
--   to be shown; row_count.
-- returns: claim_no, seq, level, fraction, logged_at, message, fields of each.
-- index: task_logs_pkey
SELECT l.claim_no, l.seq, l.level, l.fraction, l.logged_at, l.message, l.fields
FROM howdah.task_logs AS l
WHERE l.tenant_id = %(tenant_id)b::integer
    AND l.task_id = %(id)b::uuid
    AND (l.claim_no, l.seq) > (%(after_claim_no)b::integer, %(after_seq)b::integer)
    AND l.level >= %(level)b::smallint
ORDER BY l.claim_no, l.seq
LIMIT %(row_count)b::integer
