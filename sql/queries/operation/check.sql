-- Check a bulk operation as its start would; see howdah.operation_queue.
-- params: tenant_id; kind; queue (name or NULL); filter (JSON text); rate (or NULL); mode (or NULL); edits (JSON text or
--   NULL).
-- returns: one row: queue_id.
SELECT howdah.operation_queue(
    %(tenant_id)b::integer, %(kind)b::text, %(queue)b::text, %(filter)b::text::jsonb, %(rate)b::double precision,
    %(mode)b::text, %(edits)b::text::json
) AS queue_id
