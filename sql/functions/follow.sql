-- Enqueue what follows on the end of tasks, in the transaction that ends them: the tasks that a handler enqueued, which
-- come with its success (enqueues, a JSON array for each task or NULL), and the task's own on_success or on_failure. An
-- outcome is succeeded, failed or expired.
--
-- What was promised when the parent was enqueued, and what a handler has done its work for, is stored even if its queue
-- is drained or has reached a cap. A follow-up is refused only by its dedup key, or because the batch that it names is
-- closed; so it comes back with the error, and nothing is stored. A handler's task that is refused raises JQ422: its success must not be recorded without it.
--
-- Workers are told in this transaction, whatever howdah.notify says: our own sessions, which announce what they do after
-- their commits, have it off.
--
-- moves: new -> waiting (enqueue)
-- locks: what howdah.enqueue_rows locks, tenant by tenant in the order of their numbers.
CREATE OR REPLACE FUNCTION howdah.follow(tenant_ids integer[], task_ids uuid[], outcomes text[], enqueues json[])
RETURNS TABLE (task_id uuid, error text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- As in howdah.cancel_runs.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant integer;
    items json;
    payloads json[];
    parents uuid[];
    -- Of a handler's task its number, from 1; 0 of a follow-up.
    numbers integer[];
    flaw text;
    words text[] := '{}';
    word text;
    made record;
BEGIN
    FOR tenant IN SELECT DISTINCT u.id FROM unnest(tenant_ids) AS u (id) ORDER BY u.id LOOP
        SELECT
            json_agg(n.item ORDER BY n.parent_id, n.nth),
            array_agg(n.item -> 'payload' ORDER BY n.parent_id, n.nth),
            array_agg(n.parent_id ORDER BY n.parent_id, n.nth),
            array_agg(n.nth ORDER BY n.parent_id, n.nth),
            min('task ' || n.nth || ' that the handler enqueued is refused: ' || n.flaw)
        INTO items, payloads, parents, numbers, flaw
        FROM (
            SELECT
                e.task_id AS parent_id, own.nth::integer AS nth, own.item,
                coalesce(howdah.item_flaw(own.item), howdah.payload_flaw((own.item -> 'payload')::text, t.payload_bytes_max)) AS flaw
            FROM unnest(tenant_ids, task_ids, outcomes, enqueues) AS e (tenant_id, task_id, outcome, items)
            JOIN howdah.tenants AS t ON t.id = e.tenant_id
            CROSS JOIN LATERAL json_array_elements(e.items) WITH ORDINALITY AS own (item, nth)
            WHERE e.tenant_id = tenant AND e.outcome = 'succeeded'
            UNION ALL
            SELECT e.task_id, 0, t.item, NULL
            FROM unnest(tenant_ids, task_ids, outcomes) AS e (tenant_id, task_id, outcome)
            CROSS JOIN LATERAL (
                SELECT p.follow_ups -> CASE WHEN e.outcome = 'succeeded' THEN 'on_success' ELSE 'on_failure' END AS item
                FROM howdah.tasks AS p
                WHERE p.tenant_id = e.tenant_id AND p.id = e.task_id
            ) AS t
            WHERE e.tenant_id = tenant AND t.item IS NOT NULL
        ) AS n;
        CONTINUE WHEN items IS NULL;
        IF flaw IS NOT NULL THEN
            RAISE EXCEPTION '%', flaw USING ERRCODE = 'JQ422';
        END IF;
        FOR made IN
            SELECT r.ordinal, r.error, r.queue_id, r.priority, r.run_at
            FROM howdah.enqueue_rows(tenant, items, payloads, parents) AS r
            -- One that is deduplicated may name a lane to be announced.
            WHERE r.error IS NOT NULL OR r.run_at IS NOT NULL
            ORDER BY r.ordinal
        LOOP
            IF made.error IS NOT NULL AND numbers[made.ordinal] > 0 THEN
                RAISE EXCEPTION 'task % that the handler enqueued is refused: %', numbers[made.ordinal], made.error
                    USING ERRCODE = 'JQ422';
            END IF;
            IF made.error IS NOT NULL THEN
                task_id := parents[made.ordinal];
                error := made.error;
                RETURN NEXT;
            END IF;
            word := howdah.lane_word(made.queue_id, made.priority, made.run_at);
            IF word <> ALL (words) THEN
                words := words || word;
            END IF;
        END LOOP;
    END LOOP;
    IF words <> '{}' THEN
        PERFORM pg_notify(
            'howdah_wake', CASE WHEN length(array_to_string(words, ' ')) < 7900 THEN array_to_string(words, ' ') ELSE '*' END
        );
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.follow(integer[], uuid[], text[], json[]) IS 'Internal: enqueues what follows on the end of tasks.';
