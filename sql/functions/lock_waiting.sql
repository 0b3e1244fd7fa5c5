-- Lock the run of a task that waits, so that it can be changed, and return what it is. Raises JQ404 if there is
-- no such task, and JQ409 if it runs, or has ended.
-- Its columns have changed, which CREATE OR REPLACE refuses.
DROP FUNCTION IF EXISTS howdah.lock_waiting(integer, uuid);
CREATE OR REPLACE FUNCTION howdah.lock_waiting(tenant_id integer, id uuid)
RETURNS TABLE (
    queue_id integer, priority smallint, blocked_by integer, attempt integer, due_at timestamptz, expires_at timestamptz
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    task ALIAS FOR id;
    run howdah.runs;
BEGIN
    SELECT r.* INTO run FROM howdah.runs AS r WHERE r.tenant_id = tenant AND r.task_id = task FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task has ended: it is %', howdah.ended_state(tenant, task) USING ERRCODE = 'JQ409';
    END IF;
    IF run.lease_token IS NOT NULL THEN
        RAISE EXCEPTION 'the task does not wait: it is %', CASE WHEN run.awaiting_at IS NULL THEN 'running' ELSE 'awaiting_callback' END
            USING ERRCODE = 'JQ409';
    END IF;
    RETURN QUERY SELECT run.queue_id, run.priority, run.blocked_by, run.attempt, run.due_at, run.expires_at;
END
$$;
COMMENT ON FUNCTION howdah.lock_waiting(integer, uuid) IS 'Internal: the locked run of a task that waits.';
