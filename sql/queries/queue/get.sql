-- One queue of a tenant with its settings.
-- params: tenant_id; name.
-- returns: the queue, or no row.
-- index: queues_tenant_id_name_key
SELECT q.id, q.name, q.retry, q.timeout_s, q.created_at, q.updated_at
FROM howdah.queues AS q
WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(name)b::text
