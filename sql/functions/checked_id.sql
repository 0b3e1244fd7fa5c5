-- A task id given by a caller, if it is a UUIDv7 of the last hour (at most a minute ahead, for skew);
-- else NULL. Other ids could fall outside the partitions.
CREATE OR REPLACE FUNCTION howdah.checked_id(written text, instant timestamptz)
RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN written ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
            AND written::uuid >= howdah.id_floor(instant - interval '1 hour')
            AND written::uuid < howdah.id_floor(instant + interval '1 minute')
        THEN written::uuid
    END
$$;
COMMENT ON FUNCTION howdah.checked_id(text, timestamptz) IS 'Internal: a caller''s task id, or NULL if it may not be used.';
