-- The state that a client sees on a run, unless it waits for its callback. It is derived, never stored.
CREATE OR REPLACE FUNCTION howdah.run_state(
    lease_token uuid, blocked_by integer, attempt integer, run_at timestamptz, instant timestamptz
)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lease_token IS NOT NULL THEN 'running'
        WHEN blocked_by <> 0 THEN 'blocked'
        WHEN attempt > 0 THEN 'retrying'
        WHEN run_at > instant THEN 'scheduled'
        ELSE 'queued'
    END
$$;
COMMENT ON FUNCTION howdah.run_state(uuid, integer, integer, timestamptz, timestamptz) IS 'State of a live run: running, blocked, retrying, scheduled or queued.';
