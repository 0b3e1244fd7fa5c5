-- What is wrong with the dedup of a task, as "<pointer> <what is allowed>"; NULL if nothing.
CREATE OR REPLACE FUNCTION howdah.dedup_problem(dedup jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    key constant text := dedup ->> 'key';
BEGIN
    IF jsonb_typeof(dedup) <> 'object' THEN
        RETURN '/dedup must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(dedup) AS k (key) LOOP
        IF field NOT IN ('key', 'until', 'on_conflict') THEN
            RETURN format('/dedup/%s is not a field of dedup', field);
        END IF;
    END LOOP;
    -- Every character has at most four bytes; an index entry may have 2,700.
    IF coalesce(jsonb_typeof(dedup -> 'key'), '') <> 'string' OR length(key) NOT BETWEEN 1 AND 255
        OR key ~ '[\x01-\x1f\x7f-\x9f]'
    THEN
        RETURN '/dedup/key must be a text of 1 to 255 characters without control characters';
    END IF;
    IF dedup ? 'until' AND (
        jsonb_typeof(dedup -> 'until') <> 'string'
        OR NOT (
            dedup ->> 'until' IN ('started', 'finished')
            OR coalesce(howdah.duration_s(dedup ->> 'until') BETWEEN 1 AND 31622400, false)
        )
    ) THEN
        RETURN '/dedup/until must be started, finished or a duration from 1 second to 366 days';
    END IF;
    IF dedup ? 'on_conflict' AND coalesce(dedup ->> 'on_conflict', '') NOT IN ('return_existing', 'reject', 'replace') THEN
        RETURN '/dedup/on_conflict must be return_existing, reject or replace';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.dedup_problem(jsonb) IS 'What is wrong with the dedup of a task; NULL if nothing.';
