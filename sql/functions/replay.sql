-- Take a dead letter back to its queue: the same task, with all its attempts. Its history stays, and the
-- claim number goes on, so that receivers can tell old attempts from new ones. Returns queued. Raises
-- JQ404 if there is no such task, and JQ409 if it is no dead letter (any more), its expires_at has passed, or another
-- task holds its dedup key, which it takes again otherwise (then the constraint is dedup_keys_pkey, and the detail that
-- task's id). What is done is done by howdah.replay_rows; howdah.start_operation does it to many.
CREATE OR REPLACE FUNCTION howdah.replay(id uuid, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    replayed record;
BEGIN
    SELECT r.* INTO replayed FROM howdah.replay_rows(number, ARRAY[id], NULL) AS r;
    IF NOT FOUND THEN
        PERFORM howdah.refuse_replay(number, id);
    ELSIF replayed.holder_id IS NOT NULL THEN
        RAISE EXCEPTION '%', replayed.error
            USING ERRCODE = 'JQ409', CONSTRAINT = 'dedup_keys_pkey', DETAIL = replayed.holder_id::text;
    ELSIF replayed.error IS NOT NULL THEN
        RAISE EXCEPTION '%', replayed.error USING ERRCODE = 'JQ409';
    END IF;
    IF coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
        PERFORM pg_notify('howdah_wake', howdah.lane_word(replayed.queue_id, replayed.priority, replayed.run_at));
    END IF;
    RETURN 'queued';
END
$$;
COMMENT ON FUNCTION howdah.replay(uuid, text) IS 'Take a dead letter back to its queue, with all its attempts.';
