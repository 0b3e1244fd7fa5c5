-- What is wrong with a follow-up task, on_success or on_failure of another one, as "<code> <pointer> <what is allowed>";
-- NULL if nothing. It has the fields of POST /v1/tasks but for id, and for run_at and expires_at: what is sound when its
-- parent is enqueued must be so when its parent ends. It may have follow-ups of its own, 32 in all with itself.
CREATE OR REPLACE FUNCTION howdah.follow_up_problem(follow_up json, place text, bytes_max integer)
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name_pattern constant text := '^[a-z0-9][a-z0-9_.-]{0,127}$';
    follow_up_count_max constant integer := 32;
    problem text;
    field text;
BEGIN
    IF json_typeof(follow_up) <> 'object' THEN
        RETURN 'validation ' || place || ' must be an object';
    END IF;
    problem := howdah.item_flaw(follow_up);
    -- A payload may have the words too; so they are counted as what they are only where they are many.
    IF problem IS NULL AND regexp_count(follow_up::text, '"on_(success|failure)"') >= follow_up_count_max THEN
        WITH RECURSIVE tree AS (
            SELECT follow_up AS item
            UNION ALL
            SELECT child.item
            FROM tree AS t
            CROSS JOIN LATERAL (VALUES (t.item -> 'on_success'), (t.item -> 'on_failure')) AS child (item)
            WHERE json_typeof(child.item) = 'object'
        )
        SELECT format('validation / must have at most %s follow-ups, itself among them', follow_up_count_max) INTO problem
        FROM (SELECT FROM tree LIMIT follow_up_count_max + 1) AS counted
        HAVING count(*) > follow_up_count_max;
    END IF;
    IF problem IS NULL THEN
        SELECT k.name INTO field
        FROM json_object_keys(follow_up) AS k (name)
        WHERE k.name IN ('id', 'run_at', 'expires_at')
        LIMIT 1;
        IF field IS NOT NULL THEN
            RETURN 'validation ' || place || '/' || field || ' is not a field of a follow-up; delay and expires_in count from the end of its parent';
        END IF;
        SELECT
            CASE
                WHEN i.problem IS NOT NULL THEN i.problem
                WHEN i.queue !~ name_pattern THEN 'validation /queue must match ' || name_pattern
                WHEN i.handler !~ name_pattern THEN 'validation /handler must match ' || name_pattern
            END
        INTO problem
        FROM howdah.read_items(
            json_build_array(follow_up), ARRAY[follow_up -> 'payload'], howdah.now(), NULL, NULL, bytes_max
        ) AS i;
    END IF;
    -- The pointer stands between the first two spaces; that of the whole is "/".
    RETURN regexp_replace(problem, '^(\S+) /?', '\1 ' || place || '/');
END
$$;
COMMENT ON FUNCTION howdah.follow_up_problem(json, text, integer) IS 'What is wrong with a follow-up task; NULL if nothing.';
