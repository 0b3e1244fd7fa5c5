-- A page of a tenant's live runs that fit a filter (see howdah.start_operation), of one queue or of all (NULL), in the
-- order of their task ids, between from_id and until_id (both excluded). stage waiting leaves those out that run now,
-- running takes only them, NULL takes both. It looks at no more than look_max rows and ends at row_max that fit. The
-- next page begins behind look_end, unless is_end says that there is none.
--
-- Reads runs_pkey, not the lanes: a run that is moved to another place in its lane, or to another lane, while somebody
-- goes from page to page is neither missed nor seen twice; of a batch it reads runs_batch_idx. With tags in the filter it
-- reads the tasks too, by their keys.
CREATE OR REPLACE FUNCTION howdah.find_runs(
    tenant_id integer, queue_id integer, filter jsonb, stage text, created_until timestamptz, from_id uuid, until_id uuid,
    look_max integer, row_max integer,
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
    now constant timestamptz := howdah.now();
    wanted_tags constant jsonb := filter -> 'tags';
    wanted_batch_id constant uuid := filter ->> 'batch';
    wanted_priority constant integer := array_position(ARRAY['low', 'normal', 'high', 'critical'], filter ->> 'priority') - 1;
    wanted_state constant text := filter ->> 'state';
    accepted_until constant timestamptz := created_until
        - make_interval(secs => coalesce(howdah.duration_s(filter ->> 'older_than'), 0));
    wanted_target_id integer;
    run record;
BEGIN
    task_ids := '{}';
    look_count := 0;
    IF filter ? 'handler' THEN
        SELECT t.id INTO wanted_target_id
        FROM howdah.targets AS t
        WHERE t.tenant_id = tenant AND t.handler = filter ->> 'handler';
        wanted_target_id := coalesce(wanted_target_id, -1);
    END IF;
    FOR run IN
        SELECT
            l.task_id,
            (queue IS NULL OR l.queue_id = queue)
                AND l.queued_at <= accepted_until
                AND (stage IS NULL OR l.is_leased = (stage = 'running'))
                AND (wanted_target_id IS NULL OR l.target_id = wanted_target_id)
                AND (wanted_priority IS NULL OR l.priority = wanted_priority)
                AND (wanted_state IS NULL OR l.state = wanted_state)
                AND (wanted_tags IS NULL OR coalesce(t.tags @> wanted_tags, false)) AS fits
        FROM (
            SELECT
                r.task_id, r.queue_id, r.target_id, r.priority, r.queued_at, r.lease_token IS NOT NULL AS is_leased,
                howdah.run_state(r.lease_token, r.blocked_by, r.attempt, r.run_at, now) AS state
            FROM (
                (
                    SELECT a.task_id, a.queue_id, a.target_id, a.priority, a.queued_at, a.lease_token, a.blocked_by, a.attempt, a.run_at
                    FROM howdah.runs AS a
                    WHERE wanted_batch_id IS NULL AND a.tenant_id = tenant AND a.task_id > from_id AND a.task_id < until_id
                    ORDER BY a.task_id
                    LIMIT look_max
                )
                UNION ALL
                (
                    SELECT m.task_id, m.queue_id, m.target_id, m.priority, m.queued_at, m.lease_token, m.blocked_by, m.attempt, m.run_at
                    FROM howdah.runs AS m
                    WHERE m.batch_id = wanted_batch_id AND m.tenant_id = tenant AND m.task_id > from_id AND m.task_id < until_id
                    ORDER BY m.task_id
                    LIMIT look_max
                )
            ) AS r
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
        look_end := run.task_id;
        IF run.fits THEN
            task_ids := task_ids || run.task_id;
            EXIT WHEN cardinality(task_ids) = row_max;
        END IF;
    END LOOP;
    is_end := look_count < look_max AND cardinality(task_ids) < row_max;
END
$$;
COMMENT ON FUNCTION howdah.find_runs(integer, integer, jsonb, text, timestamptz, uuid, uuid, integer, integer) IS 'Internal: a page of a tenant''s live runs that fit a filter.';
