-- What was logged of tasks since it was last looked, for all who follow them, and which of them have ended.
-- params: tenant_ids, task_ids, after_claim_nos, after_seqs, levels: one element per follower, as in log/page;
--   row_count: most entries for each.
-- returns: ordinal (of the follower, from 1) with each of its entries, oldest first; and for a follower without
--   any whose task has no live run one row with the task's state in ended_as.
-- index: task_logs_pkey, runs_pkey
-- One snapshot for both: entries are stored before the outcome, so a task that is seen to have ended has no more.
SELECT
    f.ordinal::integer AS ordinal, e.claim_no, e.seq, e.level, e.fraction, e.logged_at, e.message, e.fields,
    CASE
        WHEN e.seq IS NULL AND NOT EXISTS (
            SELECT 1 FROM howdah.runs AS r WHERE r.tenant_id = f.tenant_id AND r.task_id = f.task_id
        ) THEN coalesce(howdah.task_state(f.tenant_id, f.task_id), 'gone')
    END AS ended_as
FROM unnest(
    %(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(after_claim_nos)b::integer[], %(after_seqs)b::integer[],
    %(levels)b::smallint[]
) WITH ORDINALITY AS f (tenant_id, task_id, after_claim_no, after_seq, level, ordinal)
LEFT JOIN LATERAL (
    SELECT l.claim_no, l.seq, l.level, l.fraction, l.logged_at, l.message, l.fields
    FROM howdah.task_logs AS l
    WHERE l.tenant_id = f.tenant_id
        AND l.task_id = f.task_id
        AND (l.claim_no, l.seq) > (f.after_claim_no, f.after_seq)
        AND l.level >= f.level
    ORDER BY l.claim_no, l.seq
    LIMIT %(row_count)b::integer
) AS e ON true
ORDER BY f.ordinal, e.claim_no, e.seq
