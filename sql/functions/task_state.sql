-- The state of a task, and when it was reached, read in the order that decides it: its live run; else
-- its dead letter; else its final history row; else it succeeded, in a queue that keeps no history of that
-- (keep_history). NULL if there is no such task.
CREATE OR REPLACE FUNCTION howdah.task_state(tenant_id integer, id uuid)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    task ALIAS FOR id;
    state text;
BEGIN
    SELECT CASE
        WHEN r.awaiting_at IS NOT NULL THEN 'awaiting_callback'
        ELSE howdah.run_state(r.lease_token, r.blocked_by, r.attempt, r.run_at, howdah.now())
    END INTO state
    FROM howdah.runs AS r
    WHERE r.tenant_id = tenant AND r.task_id = task;
    IF state IS NOT NULL THEN
        RETURN state;
    END IF;
    PERFORM 1 FROM howdah.dead_letters AS d WHERE d.tenant_id = tenant AND d.task_id = task;
    IF FOUND THEN
        RETURN 'failed';
    END IF;
    -- One that was purged from the dead letters is known by how its last attempt ended.
    SELECT CASE WHEN f.outcome IN ('timed_out', 'lost') THEN 'failed' ELSE f.outcome END INTO state
    FROM howdah.finished_runs AS f
    WHERE f.tenant_id = tenant AND f.task_id = task AND f.is_final
    ORDER BY f.finished_at DESC
    LIMIT 1;
    IF state IS NOT NULL THEN
        RETURN state;
    END IF;
    PERFORM 1 FROM howdah.tasks AS t WHERE t.tenant_id = tenant AND t.id = task;
    RETURN CASE WHEN FOUND THEN 'succeeded' END;
END
$$;
COMMENT ON FUNCTION howdah.task_state(integer, uuid) IS 'State of a task; NULL if there is none.';
