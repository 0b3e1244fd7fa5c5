-- Let a task that waits for its time start now: scheduled ahead, or between two attempts. What blocks it
-- still does. Returns the state after the call: queued, retrying (due now) or blocked. Raises JQ404 if
-- there is no such task, and JQ409 if it runs, has expired, or has ended.
--
-- moves: waiting -> waiting (run_now)
-- moves: blocked -> blocked (run_now)
CREATE OR REPLACE FUNCTION howdah.run_now(id uuid, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    now constant timestamptz := howdah.now();
    run record;
BEGIN
    SELECT w.* INTO run FROM howdah.lock_waiting(number, task) AS w;
    IF run.expires_at <= now THEN
        RAISE EXCEPTION 'the task does not wait: it has expired' USING ERRCODE = 'JQ409';
    END IF;
    -- One that is due keeps its place.
    IF run.due_at > now THEN
        UPDATE howdah.runs AS r
        SET due_at = now,
            run_at = CASE WHEN r.blocked_by = 0 THEN now ELSE r.run_at END
        WHERE r.tenant_id = number AND r.task_id = task;
        -- The age of its attempts counts from when it was due.
        UPDATE howdah.tasks AS t SET run_at = now WHERE t.tenant_id = number AND t.id = task AND t.run_at > now;
        IF run.blocked_by = 0 AND coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
            PERFORM pg_notify('howdah_wake', howdah.lane_word(run.queue_id, run.priority, now));
        END IF;
    END IF;
    RETURN howdah.run_state(NULL, run.blocked_by, run.attempt, now, now);
END
$$;
COMMENT ON FUNCTION howdah.run_now(uuid, text) IS 'Let a task that waits for its time start now.';
