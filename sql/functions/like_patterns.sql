-- Patterns of queue names, as HOWDAH_QUEUES has them with * and ?, written for LIKE: a worker claims from a
-- queue if its name is LIKE ANY of them. Workers match in Python; a test holds both to the same.
CREATE OR REPLACE FUNCTION howdah.like_patterns(patterns text[])
RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT array_agg(translate(replace(p.pattern, '_', '\_'), '*?', '%_'))
    FROM unnest(patterns) AS p (pattern)
$$;
COMMENT ON FUNCTION howdah.like_patterns(text[]) IS 'The patterns of workers.queues for LIKE: name LIKE ANY (howdah.like_patterns(queues)).';
