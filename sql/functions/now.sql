-- The one clock of the system: the statement's time, which tests can shift.
-- statement_timestamp() moves within a transaction (now() is frozen in it) and is stable, so that
-- index scans can use it (clock_timestamp() is volatile: a sequential scan).
-- It is inlined into each statement; howdah.clock_offset() is called only where the setting is there.
CREATE OR REPLACE FUNCTION howdah.now()
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN coalesce(current_setting('howdah.clock_offset', true), '') = '' THEN statement_timestamp()
        ELSE statement_timestamp() + howdah.clock_offset()
    END
$$;
COMMENT ON FUNCTION howdah.now() IS 'The database''s time; the setting howdah.clock_offset (an interval) shifts it in tests, for members of the owner''s role.';
