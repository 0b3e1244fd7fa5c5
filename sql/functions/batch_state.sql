-- State of a batch by its columns: open, running or complete.
CREATE OR REPLACE FUNCTION howdah.batch_state(closed_at timestamptz, completed_at timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN completed_at IS NOT NULL THEN 'complete' WHEN closed_at IS NOT NULL THEN 'running' ELSE 'open' END
$$;
COMMENT ON FUNCTION howdah.batch_state(timestamptz, timestamptz) IS 'State of a batch.';
