-- Count what howdah.start_operation with the same kind, queue and filter would touch now, and change nothing. It looks
-- at no more than 100,000 dead letters or runs: where there are more, is_complete is false, and there are at least so
-- many. Raises what howdah.start_operation does about kind, queue and filter.
CREATE OR REPLACE FUNCTION howdah.count_matches(
    kind text, queue text DEFAULT NULL, filter jsonb DEFAULT '{}', tenant text DEFAULT NULL,
    OUT matched integer, OUT is_complete boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    look_max constant integer := 100000;
    id_low constant uuid := '00000000-0000-0000-0000-000000000000';
    id_high constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    number constant integer := howdah.tenant_number(tenant);
    now constant timestamptz := howdah.now();
    queue_id constant integer := howdah.operation_queue(
        number, kind, queue, filter, NULL, CASE WHEN kind = 'cancel_tasks' THEN 'soft' END, NULL
    );
BEGIN
    IF kind LIKE '%dead_letters' THEN
        SELECT cardinality(f.task_ids), f.is_end INTO matched, is_complete
        FROM howdah.find_dead_letters(number, queue_id, filter, now, id_low, id_high, false, look_max, look_max) AS f;
    ELSE
        SELECT cardinality(f.task_ids), f.is_end INTO matched, is_complete
        FROM howdah.find_runs(
            number, queue_id, filter, CASE WHEN kind = 'purge_queue' THEN 'waiting' END, now, id_low, id_high, look_max, look_max
        ) AS f;
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.count_matches(text, text, jsonb, text) IS 'Count what a bulk operation would touch now, at most 100,000 tasks.';
