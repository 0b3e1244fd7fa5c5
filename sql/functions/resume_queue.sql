-- What howdah.resume does, and the API. Workers are told of every lane that holds something, with its oldest
-- run_at, so that none of it lies below their horizons.
CREATE OR REPLACE FUNCTION howdah.resume_queue(tenant_id integer, queue text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.lock_queue(tenant_id, queue);
    was_held boolean;
    words text;
BEGIN
    SELECT howdah.queue_state(q.paused_until, q.draining_at, howdah.now()) <> 'active' INTO was_held
    FROM howdah.queues AS q
    WHERE q.id = number;
    UPDATE howdah.queues AS q
    SET paused_until = NULL,
        paused_at = NULL,
        paused_by = NULL,
        pause_reason = NULL,
        draining_at = NULL,
        draining_by = NULL
    WHERE q.id = number AND (q.paused_until IS NOT NULL OR q.draining_at IS NOT NULL);
    IF FOUND THEN
        SELECT string_agg(howdah.lane_word(number, p.priority, head.run_at), ' ') INTO words
        FROM (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
        CROSS JOIN LATERAL (
            SELECT r.run_at
            FROM howdah.runs AS r
            WHERE r.queue_id = number AND r.priority = p.priority AND r.lease_token IS NULL AND r.run_at < 'infinity'
            ORDER BY r.run_at
            LIMIT 1
        ) AS head;
        IF words IS NOT NULL THEN
            PERFORM pg_notify('howdah_wake', words);
        END IF;
    END IF;
    RETURN was_held;
END
$$;
COMMENT ON FUNCTION howdah.resume_queue(integer, text) IS 'Internal: what howdah.resume and the API share.';
