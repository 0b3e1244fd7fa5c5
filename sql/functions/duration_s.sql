-- Seconds of a duration as the API writes it: "500ms", "30s", "5m", "1.5h", "2d", or ISO 8601 without
-- years and months ("PT5M", "P1DT12H", "P2W"). NULL for anything else.
CREATE OR REPLACE FUNCTION howdah.duration_s(duration text)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part text[];
BEGIN
    IF length(duration) > 32 THEN
        RETURN NULL;
    END IF;
    part := regexp_match(duration, '^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)$');
    IF part IS NOT NULL THEN
        RETURN part[1]::double precision
            * CASE part[2] WHEN 'ms' THEN 0.001 WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 ELSE 86400 END;
    END IF;
    part := regexp_match(
        duration,
        '^P(?=[0-9T])(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:\.[0-9]+)?)S)?)?$'
    );
    IF part IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN coalesce(part[1]::double precision, 0) * 604800 + coalesce(part[2]::double precision, 0) * 86400
        + coalesce(part[3]::double precision, 0) * 3600 + coalesce(part[4]::double precision, 0) * 60
        + coalesce(part[5]::double precision, 0);
END
$$;
COMMENT ON FUNCTION howdah.duration_s(text) IS 'Seconds of "30s", "5m", "PT5M"; NULL if it is no duration.';
