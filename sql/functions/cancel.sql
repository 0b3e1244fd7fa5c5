-- Cancel a task. One that waits ends at once, with a history row of claim number 0, and so does one whose
-- receiver owes its outcome, which is told so when it calls; a running one is asked to stop through its
-- worker's next heartbeat, which is also sent a wake-up: soft tells the handler, hard aborts it. Returns
-- the state after the call: cancelled, or running while the request is under way. What the limits of its queue or
-- flow key counted it for goes to the next one. Raises JQ404 if there is no such task and JQ409 if it has ended already.
--
-- moves: waiting -> cancelled (cancel)
-- moves: blocked -> cancelled (cancel)
-- moves: awaiting -> cancelled (cancel)
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
    IF run.lease_token IS NOT NULL AND run.awaiting_at IS NULL THEN
        UPDATE howdah.runs AS r
        SET cancel_mode = CASE WHEN r.cancel_mode = 'hard' THEN 'hard' ELSE mode END
        WHERE r.tenant_id = number AND r.task_id = task;
        PERFORM pg_notify('howdah_wake', 'b' || run.worker_id);
        RETURN 'running';
    END IF;
    DELETE FROM howdah.runs AS r WHERE r.tenant_id = number AND r.task_id = task;
    -- With its token, by which a later callback is recognised. The other columns are NULL while it waits.
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, worker_id, outcome, is_final, duration_s, queued_at, claimed_at,
        finished_at, lease_token
    )
    VALUES (
        number, task, CASE WHEN run.awaiting_at IS NULL THEN 0 ELSE run.claim_no END, run.attempt, run.queue_id, run.worker_id,
        'cancelled', true, extract(epoch FROM howdah.now() - run.claimed_at), run.queued_at, run.claimed_at, howdah.now(),
        run.lease_token
    );
    IF run.flow_state = 2 OR run.awaiting_at IS NOT NULL THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(s.queue_id, s.priority, s.run_at))
        FROM howdah.settle(ARRAY[run.queue_id], array_remove(ARRAY[run.flow_key_id], NULL)) AS s;
    END IF;
    RETURN 'cancelled';
END
$$;
COMMENT ON FUNCTION howdah.cancel(uuid, text, text) IS 'Cancel a task: at once while it waits, through its worker (soft or hard) while it runs.';
