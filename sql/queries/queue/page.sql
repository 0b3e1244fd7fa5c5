-- A page of a tenant's queues, by name.
-- params: tenant_id; after: name of the last one seen ('' from the start); row_count.
-- returns: queues, at most row_count.
-- index: queues_tenant_id_name_key
SELECT q.id, q.name, q.retry, q.timeout_s, q.created_at, q.updated_at
FROM howdah.queues AS q
WHERE q.tenant_id = %(tenant_id)b::integer AND q.name > %(after)b::text
ORDER BY q.name
LIMIT %(row_count)b::integer
