-- Raise a problem "<code> <pointer> <what is allowed>", as howdah.enqueue_rows writes it, as the error that callers
-- get: JQ413 for what is too large, JQ409 for a dedup key that another task holds, else JQ422. prefix is where the object at fault stands in the whole.
CREATE OR REPLACE FUNCTION howdah.refuse(problem text, prefix text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts constant text[] := regexp_match(problem, '^(\S+) /(\S*) (.*)$');
BEGIN
    RAISE EXCEPTION '% %', coalesce(nullif(concat(prefix, '/' || nullif(parts[2], '')), ''), '/'), parts[3]
        USING ERRCODE = CASE parts[1] WHEN 'payload_too_large' THEN 'JQ413' WHEN 'dedup_conflict' THEN 'JQ409' ELSE 'JQ422' END;
END
$$;
COMMENT ON FUNCTION howdah.refuse(text, text) IS 'Internal: raises what is wrong with an object of a call.';
