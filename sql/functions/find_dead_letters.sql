-- A page of a queue's dead letters that fit a filter (see howdah.start_operation), in the order of their ids: between
-- the ids from_id and until_id (both excluded), ascending or newest_first. It looks at no more than look_max rows and
-- ends at row_max that fit. The next page begins behind look_end, unless is_end says that there is none.
--
-- Reads dead_letters_queue_idx from there on, whatever the statistics say; with tags in the filter also the tasks of the
-- rows looked at, by their keys.
CREATE OR REPLACE FUNCTION howdah.find_dead_letters(
    tenant_id integer, queue_id integer, filter jsonb, died_until timestamptz, from_id uuid, until_id uuid,
    newest_first boolean, look_max integer, row_max integer,
    OUT task_ids uuid[], OUT look_count integer, OUT look_end uuid, OUT is_end boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    queue ALIAS FOR queue_id;
    wanted_tags constant jsonb := filter -> 'tags';
    wanted_batch_id constant uuid := filter ->> 'batch';
    wanted_type constant text := filter ->> 'error_type';
    wanted_fingerprint constant text := filter ->> 'fingerprint';
    wanted_reason constant text := filter ->> 'reason';
    died_from constant timestamptz := (filter ->> 'dead_after')::timestamptz;
    died_before constant timestamptz := (filter ->> 'dead_before')::timestamptz;
    wanted_target_id integer;
    letter record;
BEGIN
    task_ids := '{}';
    look_count := 0;
    IF filter ? 'handler' THEN
        SELECT t.id INTO wanted_target_id
        FROM howdah.targets AS t
        WHERE t.tenant_id = tenant AND t.handler = filter ->> 'handler';
        -- Nothing is for a handler that nobody has named yet.
        wanted_target_id := coalesce(wanted_target_id, -1);
    END IF;
    FOR letter IN
        SELECT
            l.task_id,
            (wanted_target_id IS NULL OR l.target_id = wanted_target_id)
                AND (wanted_batch_id IS NULL OR l.batch_id IS NOT DISTINCT FROM wanted_batch_id)
                AND (died_until IS NULL OR l.dead_at <= died_until)
                AND (died_from IS NULL OR l.dead_at >= died_from)
                AND (died_before IS NULL OR l.dead_at < died_before)
                AND (wanted_reason IS NULL OR l.reason = wanted_reason)
                AND (wanted_type IS NULL OR l.error ->> 'type' IS NOT DISTINCT FROM wanted_type)
                AND (wanted_tags IS NULL OR coalesce(t.tags @> wanted_tags, false))
                AND (wanted_fingerprint IS NULL OR howdah.error_fingerprint(l.error) = wanted_fingerprint) AS fits
        FROM (
            (
                SELECT d.task_id, d.target_id, d.batch_id, d.dead_at, d.reason, d.error
                FROM howdah.dead_letters AS d
                WHERE NOT newest_first AND d.queue_id = queue AND d.task_id > from_id AND d.task_id < until_id
                ORDER BY d.task_id
                LIMIT look_max
            )
            UNION ALL
            (
                SELECT d.task_id, d.target_id, d.batch_id, d.dead_at, d.reason, d.error
                FROM howdah.dead_letters AS d
                WHERE newest_first AND d.queue_id = queue AND d.task_id > from_id AND d.task_id < until_id
                ORDER BY d.task_id DESC
                LIMIT look_max
            )
        ) AS l
        -- OFFSET 0 keeps it a subquery, which is not even begun without tags; as a join it looked each task up.
        LEFT JOIN LATERAL (
            SELECT k.tags
            FROM howdah.tasks AS k
            WHERE wanted_tags IS NOT NULL AND k.tenant_id = tenant AND k.id = l.task_id
            OFFSET 0
        ) AS t ON true
    LOOP
        look_count := look_count + 1;
        look_end := letter.task_id;
        IF letter.fits THEN
            task_ids := task_ids || letter.task_id;
            EXIT WHEN cardinality(task_ids) = row_max;
        END IF;
    END LOOP;
    is_end := look_count < look_max AND cardinality(task_ids) < row_max;
END
$$;
COMMENT ON FUNCTION howdah.find_dead_letters(integer, integer, jsonb, timestamptz, uuid, uuid, boolean, integer, integer) IS 'Internal: a page of a queue''s dead letters that fit a filter.';
