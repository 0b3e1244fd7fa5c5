-- The catalogue that workers and the API keep: every queue with its tenant.
-- params: none.
-- returns: id, tenant_id, tenant (name), name of each queue, by id.
SELECT q.id, q.tenant_id, t.name AS tenant, q.name
FROM howdah.queues AS q
JOIN howdah.tenants AS t ON t.id = q.tenant_id
ORDER BY q.id
