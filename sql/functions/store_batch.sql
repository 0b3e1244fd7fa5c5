-- Open a batch with the id that the API has chosen; false if there is one with it already: the answer to the first
-- attempt was lost. What howdah.open_batch and the API share. created_by is who asked.
CREATE OR REPLACE FUNCTION howdah.store_batch(tenant_id integer, id uuid, follow_ups json, created_by text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    bytes_max integer;
    part record;
    problem text;
BEGIN
    IF json_typeof(follow_ups) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION '/ must be an object' USING ERRCODE = 'JQ422';
    END IF;
    SELECT t.payload_bytes_max INTO bytes_max FROM howdah.tenants AS t WHERE t.id = tenant;
    IF position('\u' IN follow_ups::text) > 0 THEN
        -- Functions that look at fields fail on \u0000 and lone surrogates, wherever they are.
        problem := howdah.item_flaw(json_build_object('payload', follow_ups));
        IF problem IS NOT NULL THEN
            RAISE EXCEPTION '/ %', split_part(problem, '/payload ', 2) USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    FOR part IN SELECT f.key, f.value FROM json_each(follow_ups) AS f (key, value) LOOP
        IF part.key NOT IN ('on_complete', 'on_success', 'on_failure') THEN
            RAISE EXCEPTION '/% is no field of a batch; there are: on_complete, on_success, on_failure', left(part.key, 128)
                USING ERRCODE = 'JQ422';
        END IF;
        problem := howdah.follow_up_problem(part.value, '/' || part.key, bytes_max);
        IF problem IS NOT NULL THEN
            PERFORM howdah.refuse(problem, '');
        ELSIF part.value ->> 'batch' = 'parent' THEN
            RAISE EXCEPTION '/%/batch must be the id of a batch: no task enqueues this one', part.key USING ERRCODE = 'JQ422';
        END IF;
    END LOOP;
    INSERT INTO howdah.batches (tenant_id, id, created_at, created_by, follow_ups)
    VALUES (tenant, id, howdah.now(), created_by, follow_ups)
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION howdah.store_batch(integer, uuid, json, text) IS 'Internal: opens a batch.';
