-- Which of the tasks that clients wait for have ended, and how.
-- params: tenant_ids, ids, wants_state: one element per task; the state of one that has not ended is returned only if it
--   is wanted; id_min, id_max: the smallest and the largest of ids.
-- returns: one row per task that has ended, does not exist (state NULL), or whose state is wanted: ordinal: its place
--   in the arrays; state; outcome of its last run, attempt, finished_at, response_status, result, error and
--   response_body as far as history has them; failed_because.
-- index: runs_pkey, finished_runs_pkey, dead_letters_pkey, tasks_pkey
-- Asked every few milliseconds for thousands of tasks that run: of those only the run is looked at. The bounds let the
-- executor leave out the partitions of other days before it opens them; by the ids alone it opens them all.
WITH asked AS MATERIALIZED (
    SELECT a.tenant_id, a.id, a.ordinal, r.state
    FROM unnest(%(tenant_ids)b::integer[], %(ids)b::uuid[], %(wants_state)b::boolean[])
        WITH ORDINALITY AS a (tenant_id, id, wants_state, ordinal)
    LEFT JOIN LATERAL (
        SELECT howdah.run_state(l.lease_token, l.blocked_by, l.attempt, l.run_at, howdah.now()) AS state
        FROM howdah.runs AS l
        WHERE l.tenant_id = a.tenant_id AND l.task_id = a.id
    ) AS r ON true
    WHERE r.state IS NULL OR a.wants_state
)
SELECT
    a.ordinal::integer AS ordinal,
    CASE
        WHEN a.state IS NOT NULL THEN a.state
        WHEN d.reason IS NOT NULL THEN 'failed'
        WHEN f.outcome IS NOT NULL THEN f.outcome
        WHEN t.id IS NOT NULL THEN 'succeeded'
    END AS state,
    f.outcome,
    coalesce(d.attempt, f.attempt) AS attempt,
    coalesce(f.finished_at, d.dead_at) AS finished_at,
    f.response_status,
    f.result,
    coalesce(f.error, d.error) AS error,
    f.response_body,
    d.reason AS failed_because
FROM asked AS a
LEFT JOIN LATERAL (
    SELECT l.reason, l.attempt, l.dead_at, l.error
    FROM howdah.dead_letters AS l
    WHERE a.state IS NULL AND l.tenant_id = a.tenant_id AND l.task_id = a.id
) AS d ON true
LEFT JOIN LATERAL (
    SELECT h.outcome, h.attempt, h.finished_at, h.response_status, h.result, h.error, h.response_body
    FROM howdah.finished_runs AS h
    WHERE a.state IS NULL
        AND h.tenant_id = a.tenant_id
        AND h.task_id = a.id
        AND h.task_id BETWEEN %(id_min)b::uuid AND %(id_max)b::uuid
        AND h.is_final
    ORDER BY h.finished_at DESC
    LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    SELECT k.id
    FROM howdah.tasks AS k
    WHERE a.state IS NULL
        AND k.tenant_id = a.tenant_id
        AND k.id = a.id
        AND k.id BETWEEN %(id_min)b::uuid AND %(id_max)b::uuid
) AS t ON true
