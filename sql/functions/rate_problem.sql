-- What is wrong with a rate, {"limit": 100, "period": "1m", "burst": 10}, as "<pointer> <what is allowed>"; NULL if
-- nothing. pointer says where it stands.
CREATE OR REPLACE FUNCTION howdah.rate_problem(rate jsonb, pointer text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text;
    seconds double precision;
BEGIN
    IF jsonb_typeof(rate) <> 'object' THEN
        RETURN pointer || ' must be an object';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(rate) AS k (key) LOOP
        IF field <> ALL (ARRAY['limit', 'period', 'burst']) THEN
            RETURN format('%s/%s is not a field of a rate', pointer, field);
        END IF;
    END LOOP;
    FOREACH field IN ARRAY ARRAY['limit', 'burst'] LOOP
        IF field = 'limit' AND NOT rate ? field OR rate ? field AND (
            jsonb_typeof(rate -> field) <> 'number'
            OR rate ->> field !~ '^[0-9]{1,7}$'
            OR (rate ->> field)::integer NOT BETWEEN 1 AND 1000000
        ) THEN
            RETURN format('%s/%s must be a whole number from 1 to 1000000', pointer, field);
        END IF;
    END LOOP;
    seconds := CASE WHEN jsonb_typeof(rate -> 'period') = 'string' THEN howdah.duration_s(rate ->> 'period') END;
    IF seconds IS NULL OR seconds NOT BETWEEN 1 AND 86400 THEN
        RETURN pointer || '/period must be a duration from 1 second to 24 hours';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.rate_problem(jsonb, text) IS 'What is wrong with a rate; NULL if nothing.';
