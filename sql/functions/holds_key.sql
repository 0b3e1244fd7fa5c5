-- Whether the task of a row of dedup_keys holds its key still: until, expires_at and claim_no are the row's,
-- run_claim_no is that of the task's live run, NULL if it has none. A claim counts for good: a run that was
-- handed back, or waits for another attempt, has started. Only a replay, which takes the key anew, makes it
-- hold again; so what was found to be over stays over while the row is the same (task_id, taken_at).
CREATE OR REPLACE FUNCTION howdah.holds_key(
    until text, expires_at timestamptz, claim_no integer, run_claim_no integer, instant timestamptz
)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE until
        WHEN 'finished' THEN run_claim_no IS NOT NULL
        WHEN 'started' THEN run_claim_no IS NOT DISTINCT FROM claim_no
        ELSE expires_at > instant
    END
$$;
COMMENT ON FUNCTION howdah.holds_key(text, timestamptz, integer, integer, timestamptz) IS 'Whether a task holds its dedup key still.';
