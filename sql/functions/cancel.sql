-- Cancel a task. One that waits ends at once, with a history row of claim number 0; a running one is
-- asked to stop through its worker's next heartbeat, which is also sent a wake-up: soft tells the
-- handler, hard aborts it. Returns the state after the call: cancelled, or running while the request
-- is under way. A place of a flow key that it held goes to the next one. Raises JQ404 if there is no such task and JQ409 if it has ended already.
--
-- moves: waiting -> cancelled (cancel)
-- moves: blocked -> cancelled (cancel)
-- moves: running -> running (cancel_request)
CREATE OR REPLACE FUNCTION howdah.cancel(id uuid, mode text DEFAULT 'soft', tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    run howdah.runs;
    state text;
BEGIN
    IF mode IS NULL OR mode NOT IN ('soft', 'hard') THEN
        RAISE EXCEPTION '/mode must be soft or hard' USING ERRCODE = 'JQ422';
    END IF;
    SELECT r.* INTO run FROM howdah.runs AS r WHERE r.tenant_id = number AND r.task_id = task FOR UPDATE;
    IF NOT FOUND THEN
        state := howdah.ended_state(number, task);
        IF state = 'cancelled' THEN
            RETURN state;
        END IF;
        RAISE EXCEPTION 'the task has ended: it is %', state USING ERRCODE = 'JQ409';
    END IF;
    IF run.lease_token IS NOT NULL THEN
        UPDATE howdah.runs AS r
        SET cancel_mode = CASE WHEN r.cancel_mode = 'hard' THEN 'hard' ELSE mode END
        WHERE r.tenant_id = number AND r.task_id = task;
        PERFORM pg_notify('howdah_wake', 'b' || run.worker_id);
        RETURN 'running';
    END IF;
    DELETE FROM howdah.runs AS r WHERE r.tenant_id = number AND r.task_id = task;
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at
    )
    VALUES (number, task, 0, run.attempt, run.queue_id, 'cancelled', true, run.queued_at, howdah.now());
    IF run.flow_state = 2 THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(s.queue_id, s.priority, s.run_at))
        FROM howdah.settle('{}', ARRAY[run.flow_key_id]) AS s;
    END IF;
    RETURN 'cancelled';
END
$$;
COMMENT ON FUNCTION howdah.cancel(uuid, text, text) IS 'Cancel a task: at once while it waits, through its worker (soft or hard) while it runs.';
