-- Delete a queue in which no task is live and none waits as a dead letter. Raises JQ409 that says how many there
-- are (counting to 1,000), and JQ404 if there is no such queue.
--
-- The row is only marked, and its settings go back to the defaults: history goes on to name the queue, and a new
-- task of its name, or PUT /v1/queues/{q}, brings it back. That is also why an enqueue at the same moment needs no
-- lock. If it comes later, it finds the mark, and makes the queue anew. If it began before, its task may be stored
-- in the marked queue: the chore "sweep", which sees every lane that holds something, takes the mark away.
CREATE OR REPLACE FUNCTION howdah.delete_queue(queue text, tenant text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.lock_queue(howdah.tenant_number(tenant), queue);
    count_max constant integer := 1000;
    live integer;
    dead integer;
BEGIN
    -- One statement: a task that moves from one of these places to another is seen in one of them.
    SELECT
        (SELECT count(*) FROM (SELECT 1 FROM howdah.runs AS r WHERE r.queue_id = number AND r.lease_token IS NULL LIMIT count_max) AS w)
        + (SELECT count(*) FROM (SELECT 1 FROM howdah.runs AS r WHERE r.queue_id = number AND r.lease_expires_at IS NOT NULL LIMIT count_max) AS l),
        (SELECT count(*) FROM (SELECT 1 FROM howdah.dead_letters AS d WHERE d.queue_id = number LIMIT count_max) AS f)
    INTO live, dead;
    IF live > 0 OR dead > 0 THEN
        RAISE EXCEPTION 'the queue is not empty: it holds % live tasks and % dead letters',
            CASE WHEN live < count_max THEN live::text ELSE count_max || ' or more' END,
            CASE WHEN dead < count_max THEN dead::text ELSE count_max || ' or more' END
            USING ERRCODE = 'JQ409', HINT = 'Drain it, and cancel, replay or purge what is left.';
    END IF;
    UPDATE howdah.queues AS q
    SET deleted_at = howdah.now(),
        updated_at = howdah.now(),
        retry = DEFAULT,
        timeout_s = DEFAULT,
        keep_history = DEFAULT,
        max_depth = DEFAULT,
        max_age_s = DEFAULT,
        max_running = DEFAULT,
        rate_limit = DEFAULT,
        rate_period_s = DEFAULT,
        rate_burst = DEFAULT,
        gate_at = DEFAULT,
        has_flow_keys = DEFAULT,
        pressure = DEFAULT,
        pressure_until = DEFAULT,
        paused_until = DEFAULT,
        paused_at = DEFAULT,
        paused_by = DEFAULT,
        pause_reason = DEFAULT,
        draining_at = DEFAULT,
        draining_by = DEFAULT
    WHERE q.id = number;
    PERFORM pg_notify('howdah_wake', 'c');
END
$$;
COMMENT ON FUNCTION howdah.delete_queue(text, text) IS 'Delete a queue that holds no live task and no dead letter.';
