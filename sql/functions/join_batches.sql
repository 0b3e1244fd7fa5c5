-- Which batch each item of howdah.enqueue_rows joins, by its ordinal, or why it may not: there is no such batch (or it is
-- another tenant's), or it is closed. "parent" is the batch of the task whose end enqueues the item; none if that has none.
--
-- Who adds tasks to a batch locks its row until his transaction ends: it is closed after that, and so cannot be
-- completed without them. One that is closed already is not even waited for. What a member enqueues when it ends needs
-- neither: until this transaction commits, the member itself is live for all others, and from then on the new task is.
--
-- locks: batches in id order, FOR SHARE.
CREATE OR REPLACE FUNCTION howdah.join_batches(tenant_id integer, items json, parents uuid[])
RETURNS TABLE (batch_ids uuid[], problems text[])
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
    tenant ALIAS FOR tenant_id;
    id_pattern constant text := '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$';
    family_ids uuid[];
    words text[];
    open_ids uuid[];
    known_ids uuid[];
BEGIN
    -- What has no form is refused by howdah.read_items.
    SELECT
        array_agg(CASE WHEN json_typeof(x.batch) = 'string' THEN x.batch #>> '{}' END ORDER BY x.ordinal),
        array_agg(
            CASE WHEN x.batch IS NOT NULL AND parents IS NOT NULL THEN
                (SELECT p.batch_id FROM howdah.tasks AS p WHERE p.tenant_id = tenant AND p.id = parents[x.ordinal])
            END
            ORDER BY x.ordinal
        )
    INTO words, family_ids
    FROM ROWS FROM (json_to_recordset(items) AS (batch json)) WITH ORDINALITY AS x (batch, ordinal);
    SELECT
        array_agg(
            CASE WHEN w.word = 'parent' AND parents[w.ordinal] IS NOT NULL THEN w.family_id WHEN w.word ~ id_pattern THEN w.word::uuid END
            ORDER BY w.ordinal
        )
    INTO batch_ids
    FROM unnest(words, family_ids) WITH ORDINALITY AS w (word, family_id, ordinal);
    SELECT array_agg(a.id) INTO open_ids
    FROM (
        SELECT DISTINCT u.id
        FROM unnest(batch_ids, family_ids) AS u (id, family_id)
        WHERE u.id IS DISTINCT FROM u.family_id
        ORDER BY u.id
    ) AS i
    CROSS JOIN LATERAL (
        SELECT b.id
        FROM howdah.batches AS b
        WHERE b.tenant_id = tenant AND b.id = i.id AND b.closed_at IS NULL
        FOR SHARE OF b
    ) AS a;
    SELECT array_agg(b.id) INTO known_ids
    FROM howdah.batches AS b
    WHERE b.tenant_id = tenant AND b.id = ANY (batch_ids);
    SELECT array_agg(
        CASE
            WHEN w.word = 'parent' AND parents[w.ordinal] IS NULL
                THEN 'validation /batch must be the id of a batch: no other task enqueues this one'
            WHEN w.id IS NOT DISTINCT FROM w.family_id OR w.id = ANY (open_ids) THEN NULL
            WHEN w.id = ANY (known_ids) THEN 'state_conflict /batch is closed: it takes no more tasks'
            WHEN w.id IS NOT NULL THEN format('not_found /batch there is no batch %s', w.id)
        END
        ORDER BY w.ordinal
    )
    INTO problems
    FROM unnest(words, batch_ids, family_ids) WITH ORDINALITY AS w (word, id, family_id, ordinal);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION howdah.join_batches(integer, json, uuid[]) IS 'Internal: which batch each item joins, or why it may not.';
