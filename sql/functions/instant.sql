-- The instant of an RFC 3339 timestamp with its offset; NULL for anything else, also for dates that do
-- not exist and offsets that no place has (PostgreSQL takes less than 16 hours).
CREATE OR REPLACE FUNCTION howdah.instant(written text)
RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    IF written !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$' THEN
        RETURN NULL;
    END IF;
    RETURN written::timestamptz;
EXCEPTION
    WHEN datetime_field_overflow OR invalid_datetime_format OR invalid_time_zone_displacement_value THEN
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION howdah.instant(text) IS 'RFC 3339 text as an instant; NULL if it is none.';
