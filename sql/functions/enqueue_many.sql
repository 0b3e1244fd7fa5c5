-- Enqueue an array of tasks, each with the fields of POST /v1/tasks. One row per item comes back, by
-- its ordinal: see howdah.enqueue_rows for what it says. Workers are told in the caller's transaction,
-- unless the setting howdah.notify is off.
CREATE OR REPLACE FUNCTION howdah.enqueue_many(tenant text, items json)
RETURNS TABLE (ordinal integer, id uuid, created boolean, error text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- As in howdah.enqueue_rows.
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    flaws text[];
    ordinals integer[];
    wellformed json;
    payloads json[];
    words text[];
    plain record;
    made record;
BEGIN
    IF json_typeof(items) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'items must be a JSON array' USING ERRCODE = 'JQ422';
    END IF;
    -- Without it the INSERT fails with a CHECK violation, which callers would take for a mistake of theirs. Asked
    -- before, for 1.7 us: a block that turns one error into another costs each call a subtransaction.
    IF NOT howdah.has_partition(howdah.now()) THEN
        RAISE EXCEPTION 'tasks cannot be stored: there is no partition for today'
            USING ERRCODE = 'JQ503', HINT = 'Start a scheduler, which makes partitions, or run howdah migrate.';
    END IF;
    SELECT p.*, i.ids INTO plain
    FROM howdah.read_plain(items) AS p
    CROSS JOIN LATERAL (
        SELECT array_agg(howdah.new_id(n)) AS ids FROM generate_series(1, cardinality(p.kinds)) AS n
    ) AS i;
    IF FOUND THEN
        SELECT array_agg(DISTINCT howdah.lane_word(s.queue_id, 1::smallint, s.created_at)) INTO words
        FROM howdah.store_plain(number, plain.queues, plain.handlers, NULL, NULL, plain.kinds, plain.ids, plain.payloads) AS s;
    END IF;
    IF words IS NOT NULL THEN
        RETURN QUERY
        SELECT p.ordinality::integer, p.id, true, NULL::text FROM unnest(plain.ids) WITH ORDINALITY AS p (id, ordinality);
    ELSE
        words := '{}';
        SELECT
            array_agg(f.flaw ORDER BY i.ordinality),
            array_agg(i.ordinality::integer ORDER BY i.ordinality) FILTER (WHERE f.flaw IS NULL),
            json_agg(i.value ORDER BY i.ordinality) FILTER (WHERE f.flaw IS NULL),
            array_agg(i.value -> 'payload' ORDER BY i.ordinality) FILTER (WHERE f.flaw IS NULL)
        INTO flaws, ordinals, wellformed, payloads
        FROM json_array_elements(items) WITH ORDINALITY AS i (value, ordinality)
        -- OFFSET 0 keeps the call in one place; merged into the aggregates above it was made four times an item.
        CROSS JOIN LATERAL (SELECT howdah.item_flaw(i.value) AS flaw OFFSET 0) AS f;

        FOR made IN
            SELECT
                r.*,
                howdah.lane_word(
                    r.queue_id, r.priority,
                    min(r.run_at) OVER (PARTITION BY r.queue_id, r.priority)
                ) AS word
            FROM howdah.enqueue_rows(number, wellformed, payloads) AS r
            WHERE wellformed IS NOT NULL
        LOOP
            ordinal := ordinals[made.ordinal];
            id := made.id;
            created := made.created;
            error := made.error;
            IF made.run_at IS NOT NULL AND made.word <> ALL (words) THEN
                words := words || made.word;
            END IF;
            RETURN NEXT;
        END LOOP;
        RETURN QUERY
        SELECT f.ordinality::integer, NULL::uuid, false, f.flaw
        FROM unnest(flaws) WITH ORDINALITY AS f (flaw, ordinality)
        WHERE f.flaw IS NOT NULL;
    END IF;

    IF words <> '{}' AND coalesce(current_setting('howdah.notify', true), '') <> 'off' THEN
        PERFORM pg_notify(
            'howdah_wake', CASE WHEN length(array_to_string(words, ' ')) < 7900 THEN array_to_string(words, ' ') ELSE '*' END
        );
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.enqueue_many(text, json) IS 'Enqueue a JSON array of tasks with the fields of POST /v1/tasks; one row per item says its id or why it was refused.';
