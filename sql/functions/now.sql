-- The one clock of the system: the statement's time, which tests can shift.
-- statement_timestamp() moves within a transaction (now() is frozen in it) and is stable, so that
-- index scans can use it (clock_timestamp() is volatile: a sequential scan).
CREATE OR REPLACE FUNCTION howdah.now()
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT statement_timestamp() + coalesce(nullif(current_setting('howdah.clock_offset', true), ''), '0')::interval
$$;
COMMENT ON FUNCTION howdah.now() IS 'The database''s time; the setting howdah.clock_offset (an interval) shifts it in tests.';
