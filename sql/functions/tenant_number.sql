-- The internal number of a tenant: the one named, else the setting howdah.tenant, else "default".
CREATE OR REPLACE FUNCTION howdah.tenant_number(tenant text)
RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted constant text := coalesce(tenant, nullif(current_setting('howdah.tenant', true), ''), 'default');
    number integer;
BEGIN
    SELECT t.id INTO number FROM howdah.tenants AS t WHERE t.name = wanted;
    IF number IS NULL THEN
        RAISE EXCEPTION 'there is no tenant "%"', wanted USING ERRCODE = 'JQ404';
    END IF;
    RETURN number;
END
$$;
COMMENT ON FUNCTION howdah.tenant_number(text) IS 'Number of a tenant by name; JQ404 if there is none.';
