-- Enqueue what follows on the end of a batch, in the transaction that completes it; see howdah.complete_batches. Returns
-- why one of the follow-ups was refused: by its dedup key, or because the batch that it is to join takes no more tasks.
--
-- moves: new -> waiting (enqueue)
CREATE OR REPLACE FUNCTION howdah.follow_batch(tenant_id integer, id uuid)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    batch ALIAS FOR id;
    items json;
    payloads json[];
    fields text[];
    words text[] := '{}';
    refusals text[] := '{}';
    made record;
BEGIN
    SELECT json_agg(f.item ORDER BY f.nth), array_agg(f.payload ORDER BY f.nth), array_agg(f.field ORDER BY f.nth)
    INTO items, payloads, fields
    FROM (
        SELECT
            n.nth, n.field, b.follow_ups -> n.field AS item,
            CASE
                WHEN b.follow_ups #> ARRAY[n.field, 'payload'] IS NOT NULL THEN b.follow_ups #> ARRAY[n.field, 'payload']
                WHEN b.follow_ups #> ARRAY[n.field, 'http', 'body'] IS NULL
                    AND coalesce(b.follow_ups #>> ARRAY[n.field, 'http', 'method'], 'POST') NOT IN ('GET', 'HEAD')
                    THEN json_build_object(
                    'batch', b.id, 'tasks', b.task_count, 'succeeded', b.succeeded, 'failed', b.failed,
                    'cancelled', b.cancelled, 'expired', b.expired
                )
            END AS payload
        FROM howdah.batches AS b
        CROSS JOIN LATERAL (
            VALUES (1, 'on_complete', true), (2, 'on_success', b.succeeded = b.task_count), (3, 'on_failure', b.failed + b.expired > 0)
        ) AS n (nth, field, is_wanted)
        WHERE b.tenant_id = tenant AND b.id = batch AND n.is_wanted
    ) AS f
    WHERE f.item IS NOT NULL;
    IF items IS NULL THEN
        RETURN NULL;
    END IF;
    FOR made IN
        SELECT r.ordinal, r.id, r.created, r.error, r.queue_id, r.priority, r.run_at
        FROM howdah.enqueue_rows(tenant, items, payloads, array_fill(NULL::uuid, ARRAY[cardinality(payloads)])) AS r
        ORDER BY r.ordinal
    LOOP
        IF made.error IS NOT NULL THEN
            refusals := refusals || concat(fields[made.ordinal], ': ', made.error);
        END IF;
        IF made.created THEN
            UPDATE howdah.tasks AS t SET completes_batch_id = batch WHERE t.tenant_id = tenant AND t.id = made.id;
        END IF;
        IF made.run_at IS NOT NULL THEN
            words := words || howdah.lane_word(made.queue_id, made.priority, made.run_at);
        END IF;
    END LOOP;
    -- Whatever howdah.notify says: our own sessions have it off, and announce by themselves what they know of.
    IF words <> '{}' THEN
        PERFORM pg_notify('howdah_wake', array_to_string(words, ' '));
    END IF;
    RETURN nullif(array_to_string(refusals, '; '), '');
END
$$;
COMMENT ON FUNCTION howdah.follow_batch(integer, uuid) IS 'Internal: enqueues what follows on the end of a batch.';
