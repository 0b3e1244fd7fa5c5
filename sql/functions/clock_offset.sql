-- What howdah.now() adds to the server's time when the setting howdah.clock_offset is there: its value for
-- sessions of who may do everything here anyway, nothing for others. Else a producer could store tasks
-- under times of its choice.
CREATE OR REPLACE FUNCTION howdah.clock_offset()
RETURNS interval
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- session_user is the role that logged in, also inside of functions that run as their owner.
    IF pg_has_role(
        session_user, (SELECT p.proowner FROM pg_proc AS p WHERE p.oid = 'howdah.clock_offset()'::regprocedure), 'MEMBER'
    ) THEN
        RETURN current_setting('howdah.clock_offset')::interval;
    END IF;
    RETURN interval '0';
END
$$;
COMMENT ON FUNCTION howdah.clock_offset() IS 'Internal: the shift of howdah.now() in tests.';
