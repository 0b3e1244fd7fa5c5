-- Every target: what workers match their handlers with.
-- params: none.
-- returns: id, tenant_id (NULL for HTTP), handler (NULL for HTTP), is_parked.
SELECT t.id, t.tenant_id, t.handler, t.is_parked
FROM howdah.targets AS t
ORDER BY t.id
