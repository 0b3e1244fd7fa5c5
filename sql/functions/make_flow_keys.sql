-- Make the flow keys of these tasks that do not exist yet, bring the limits of the others up to what the newest task
-- says, and mark the queues as limited. flows are sound (see howdah.flow_problem), one for each queue id.
--
-- A key that is there with the same limits is only kept from being cleaned away, so that enqueuing never waits for
-- claims, nor they for a client's transaction.
--
-- locks: queues in id order, then flow_keys in key order.
CREATE OR REPLACE FUNCTION howdah.make_flow_keys(tenant_id integer, queue_ids integer[], flows jsonb[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    wanted jsonb[];
    locked_count integer;
BEGIN
    UPDATE howdah.queues AS q
    SET has_flow_keys = true
    FROM (
        SELECT l.id FROM howdah.queues AS l WHERE l.id = ANY (queue_ids) AND NOT l.has_flow_keys ORDER BY l.id FOR NO KEY UPDATE
    ) AS new
    WHERE q.id = new.id;
    IF FOUND THEN
        PERFORM pg_notify('howdah_wake', 'c');
    END IF;
    -- Of each key the last one of the batch.
    SELECT array_agg(l.flow ORDER BY l.key) INTO wanted
    FROM (
        SELECT DISTINCT ON (u.flow ->> 'key') u.flow, u.flow ->> 'key' AS key
        FROM unnest(flows) WITH ORDINALITY AS u (flow, ordinal)
        ORDER BY u.flow ->> 'key', u.ordinal DESC
    ) AS l;
    LOOP
        INSERT INTO howdah.flow_keys (tenant_id, key, concurrency, rate_limit, rate_period_s, rate_burst)
        SELECT tenant, w.key, w.concurrency, w.rate_limit, w.rate_period_s, w.rate_burst
        FROM howdah.read_flows(wanted) AS w
        WHERE NOT EXISTS (SELECT FROM howdah.flow_keys AS f WHERE f.tenant_id = tenant AND f.key = w.key)
        ORDER BY w.key
        ON CONFLICT DO NOTHING;
        PERFORM 1
        FROM howdah.flow_keys AS f
        WHERE f.tenant_id = tenant AND f.key = ANY (ARRAY(SELECT w.key FROM howdah.read_flows(wanted) AS w))
        ORDER BY f.key
        FOR KEY SHARE;
        GET DIAGNOSTICS locked_count = ROW_COUNT;
        -- One that was cleaned away just then is made anew.
        EXIT WHEN locked_count = cardinality(wanted);
    END LOOP;
    UPDATE howdah.flow_keys AS f
    SET concurrency = w.concurrency, rate_limit = w.rate_limit, rate_period_s = w.rate_period_s, rate_burst = w.rate_burst
    FROM howdah.read_flows(wanted) AS w
    WHERE f.tenant_id = tenant
        AND f.key = w.key
        AND (f.concurrency, f.rate_limit, f.rate_period_s, f.rate_burst)
            IS DISTINCT FROM (w.concurrency, w.rate_limit, w.rate_period_s, w.rate_burst);
END
$$;
COMMENT ON FUNCTION howdah.make_flow_keys(integer, integer[], jsonb[]) IS 'Internal: makes flow keys on their first use, and keeps their limits up to date.';
