-- howdah.now(), but of this moment and not of the statement's begin: for what is done after a wait for a lock. A run
-- that was claimed in the place of another would otherwise seem to have begun before that ended.
CREATE OR REPLACE FUNCTION howdah.now_exactly()
RETURNS timestamptz
LANGUAGE sql VOLATILE
AS $$
    SELECT howdah.now() + (clock_timestamp() - statement_timestamp())
$$;
COMMENT ON FUNCTION howdah.now_exactly() IS 'Internal: the database''s time of this moment.';
