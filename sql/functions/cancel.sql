-- Cancel a task. One that waits ends at once, with a history row of claim number 0, and so does one whose
-- receiver owes its outcome, which is told so when it calls; a running one is asked to stop through its
-- worker's next heartbeat, which is also sent a wake-up: soft tells the handler, hard aborts it. Returns
-- the state after the call: cancelled, or running while the request is under way. What the limits of its queue or
-- flow key counted it for goes to the next one. Raises JQ404 if there is no such task and JQ409 if it has ended already.
-- What is done is done by howdah.cancel_runs.
CREATE OR REPLACE FUNCTION howdah.cancel(id uuid, mode text DEFAULT 'soft', tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    task ALIAS FOR id;
    cancelled record;
    state text;
BEGIN
    IF mode IS NULL OR mode NOT IN ('soft', 'hard') THEN
        RAISE EXCEPTION '/mode must be soft or hard' USING ERRCODE = 'JQ422';
    END IF;
    SELECT c.* INTO cancelled FROM howdah.cancel_runs(number, ARRAY[task], mode, NULL) AS c;
    IF NOT FOUND THEN
        state := howdah.ended_state(number, task);
        IF state = 'cancelled' THEN
            RETURN state;
        END IF;
        RAISE EXCEPTION 'the task has ended: it is %', state USING ERRCODE = 'JQ409';
    END IF;
    IF cancelled.state = 'running' THEN
        PERFORM pg_notify('howdah_wake', 'b' || cancelled.worker_id);
    END IF;
    RETURN cancelled.state;
END
$$;
COMMENT ON FUNCTION howdah.cancel(uuid, text, text) IS 'Cancel a task: at once while it waits, through its worker (soft or hard) while it runs.';
