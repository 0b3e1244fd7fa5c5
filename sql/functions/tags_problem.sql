-- What is wrong with the tags of a task, as "<pointer> <what is allowed>"; NULL if nothing.
CREATE OR REPLACE FUNCTION howdah.tags_problem(tags jsonb)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tag record;
    tag_count integer := 0;
BEGIN
    IF jsonb_typeof(tags) <> 'object' THEN
        RETURN '/tags must be an object';
    END IF;
    FOR tag IN SELECT t.key, t.value FROM jsonb_each(tags) AS t (key, value) LOOP
        tag_count := tag_count + 1;
        IF tag_count > 32 THEN
            RETURN '/tags must have at most 32 members';
        ELSIF tag.key !~ '^[a-z0-9][a-z0-9_.-]{0,127}$' THEN
            RETURN '/tags has a name that does not match ^[a-z0-9][a-z0-9_.-]{0,127}$';
        ELSIF jsonb_typeof(tag.value) <> 'string' OR length(tag.value #>> '{}') > 256 THEN
            RETURN format('/tags/%s must be a string of at most 256 characters', tag.key);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.tags_problem(jsonb) IS 'What is wrong with tags; NULL if nothing.';
