-- Make the queues and targets of these names that do not exist yet, or were deleted, in name order, and tell the
-- workers that their catalogue changed. Names that are not allowed make nothing.
CREATE OR REPLACE FUNCTION howdah.make_names(tenant_id integer, queues text[], handlers text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    name_pattern constant text := '^[a-z0-9][a-z0-9_.-]{0,127}$';
    has_changed boolean;
BEGIN
    INSERT INTO howdah.queues AS q (tenant_id, name)
    SELECT tenant, n.name
    FROM unnest(queues) AS n (name)
    WHERE n.name ~ name_pattern
    ORDER BY n.name
    ON CONFLICT ON CONSTRAINT queues_tenant_id_name_key DO UPDATE
    SET deleted_at = NULL,
        created_at = howdah.now(),
        updated_at = howdah.now()
    WHERE q.deleted_at IS NOT NULL;
    has_changed := FOUND;
    INSERT INTO howdah.targets (tenant_id, handler)
    SELECT tenant, n.name
    FROM unnest(handlers) AS n (name)
    WHERE n.name ~ name_pattern
    ORDER BY n.name
    ON CONFLICT DO NOTHING;
    IF has_changed OR FOUND THEN
        PERFORM pg_notify('howdah_wake', 'c');
    END IF;
END
$$;
COMMENT ON FUNCTION howdah.make_names(integer, text[], text[]) IS 'Internal: makes queues and targets on their first use.';
