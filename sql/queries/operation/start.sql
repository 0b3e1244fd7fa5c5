-- Start a bulk operation; see howdah.start_operation.
-- params: tenant_id; kind; queue (name or NULL); filter (JSON text); rate (or NULL); mode (or NULL); edits (JSON text or
--   NULL); created_by.
-- returns: one row: id.
SELECT howdah.store_operation(
    %(tenant_id)b::integer, %(kind)b::text, %(queue)b::text, %(filter)b::text::jsonb, %(rate)b::double precision,
    %(mode)b::text, %(edits)b::text::json, %(created_by)b::text
) AS id
