-- The catalogue that workers keep: every queue with its tenant.
-- params: none.
-- returns: id, tenant_id, tenant (name), name, is_limited of each queue, by id.
-- One that was deleted is left out. If a task lies in it all the same, queue/revive brings it back.
SELECT q.id, q.tenant_id, t.name AS tenant, q.name, q.is_limited
FROM howdah.queues AS q
JOIN howdah.tenants AS t ON t.id = q.tenant_id
WHERE q.deleted_at IS NULL
ORDER BY q.id
